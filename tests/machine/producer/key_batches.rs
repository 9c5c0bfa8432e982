//! Key-based batching: one batch for each key.

use prost::Message as _;
use pulsar_native::machine::producer::BatchingType;

use super::*;

fn by_key(change: impl FnOnce(&mut ProducerConfig)) -> ProducerConfig {
    config(|config| {
        config.batching_type = BatchingType::KeyBased;
        change(config);
    })
}

/// `text`: the key is its first character.
fn keyed(text: &str) -> Message {
    Message::new(text.to_owned()).with_key(&text[..1])
}

fn push_all(harness: &mut ProducerHarness, texts: &str) -> Vec<PendingSend> {
    texts.split(' ').map(|text| harness.push(keyed(text))).collect()
}

/// The payloads of each entry.
fn entries(sent: &[Sent]) -> Vec<String> {
    let text = |payload: &Bytes| String::from_utf8_lossy(payload).into_owned();
    sent.iter().map(|sent| sent.payloads.iter().map(text).collect::<Vec<_>>().join(" ")).collect()
}

/// By prost.
fn metadata_of(sent: &Sent) -> pb::MessageMetadata {
    let mut rx = BytesMut::from(&sent.raw[..]);
    let run = cut(&mut rx, &Limits::default()).expect("within the limit").expect("a whole frame");
    let Some(Ok(Frame::Send { entry, .. })) = frames(run).next() else { panic!("not a SEND") };
    let parts = EntryParts::split(&entry).expect("an entry");
    pb::MessageMetadata::decode(entry.slice(parts.metadata)).expect("its metadata")
}

#[test]
fn each_key_has_a_batch_and_ids_grow_from_entry_to_entry() {
    let mut harness = ProducerHarness::attached(by_key(|_| {}));
    let _ = push_all(&mut harness, "a1 b2 a3 c4 b5");
    let sent = harness.transmit();
    assert_eq!(entries(&sent), ["a1 a3", "c4", "b2 b5"]);
    assert_eq!(ids(&sent), [0, 2, 3, 1, 4]);
    let named = |sent: &Sent| (sent.head.sequence_id, sent.head.highest_sequence_id, sent.head.num_messages);
    assert_eq!(sent.iter().map(named).collect::<Vec<_>>(), [(2, None, 2), (3, None, 1), (4, None, 2)]);
    let _ = push_all(&mut harness, "c6 a7");
    assert_eq!(ids(&harness.transmit()), [5, 6], "the next ones go on");
}

#[test]
fn the_metadata_of_a_batch_has_its_key() {
    let mut harness = ProducerHarness::attached(by_key(|_| {}));
    for key in ["x", "y", "x", "y"] {
        let _ = harness.push(Message::new(key).with_key("k").with_ordering_key(key));
        let _ = harness.push(Message::new(key).with_key(key));
        let _ = harness.push(Message::new(key).with_key_bytes(key));
        let _ = harness.push(Message::new(key));
    }
    let sent = harness.transmit();
    let keys = |sent: &Sent| {
        let metadata = metadata_of(sent);
        let ordering_key = metadata.ordering_key.clone().map(|key| String::from_utf8(key.into()).expect("text"));
        (metadata.partition_key.clone(), metadata.partition_key_b64_encoded(), ordering_key, sent.payloads.len())
    };
    let text = |text: &str| Some(text.to_owned());
    let expected = [
        (text("k"), false, text("x"), 2),
        (text("x"), false, None, 2),
        (text("eA=="), true, None, 2),
        (text("k"), false, text("y"), 2),
        (text("y"), false, None, 2),
        (text("eQ=="), true, None, 2),
        (None, false, None, 4),
    ];
    assert_eq!(sent.iter().map(keys).collect::<Vec<_>>(), expected);
}

#[test]
fn one_full_batch_closes_all() {
    let mut harness = ProducerHarness::attached(by_key(|config| config.batching_max_messages = 2));
    let _ = push_all(&mut harness, "a1 b2 b3 a4 a5");
    assert_eq!(entries(&harness.transmit()), ["a1", "b2 b3", "a4 a5"]);
    let mut harness = ProducerHarness::attached(by_key(|config| config.batching_max_bytes = 5));
    let _ = push_all(&mut harness, "a12 b2 a345 b6 b78");
    assert_eq!(entries(&harness.transmit()), ["a12", "b2", "a345", "b6 b78"]);
}

#[test]
fn what_is_not_batched_is_behind_all_before_it() {
    let mut harness = ProducerHarness::attached(by_key(|_| {}));
    let _ = push_all(&mut harness, "a1 b2 a3");
    let _ = harness.push(keyed("b4").with_sequence_id(100));
    let _ = harness.push(keyed("a5").with_sequence_id(200));
    let _ = push_all(&mut harness, "b6 a7");
    let _ = harness.push(keyed("a8").with_batching(false));
    let sent = harness.transmit();
    assert_eq!(entries(&sent), ["b2", "a1 a3", "b4", "a5", "b6", "a7", "a8"]);
    assert_eq!(ids(&sent), [1, 0, 2, 100, 200, 201, 202, 203]);
}

#[test]
fn what_comes_before_the_first_attach_is_numbered_by_it() {
    let mut harness = ProducerHarness::new(by_key(|config| config.batching_max_messages = 2));
    let _ = push_all(&mut harness, "a1 b2 a3 c4 b5 c6 a7");
    harness.attach(9);
    let sent = harness.transmit();
    assert_eq!(entries(&sent), ["a1 a3", "b2", "c4 c6", "b5", "a7"]);
    assert_eq!(ids(&sent), (10..17).collect::<Vec<_>>());
}

#[test]
fn a_batch_waits_as_long_as_the_first_was_told_to() {
    let mut harness =
        ProducerHarness::attached(by_key(|config| config.batching_max_publish_delay = Duration::from_millis(10)));
    let _ = push_all(&mut harness, "a1");
    harness.pass(Duration::from_millis(9));
    let _ = push_all(&mut harness, "b2 a3");
    assert!(harness.transmit().is_empty());
    harness.pass(Duration::from_millis(1));
    assert_eq!(entries(&harness.transmit()), ["b2", "a1 a3"]);
}

#[test]
fn a_flush_sends_the_batches_of_all_keys_and_waits_for_them() {
    let mut harness =
        ProducerHarness::attached(by_key(|config| config.batching_max_publish_delay = Duration::from_secs(1)));
    let _ = push_all(&mut harness, "a1 b2 a3");
    let mut flush = harness.flush();
    let _ = push_all(&mut harness, "b4");
    assert_eq!(entries(&harness.transmit()), ["b2", "a1 a3"]);
    harness.confirm(1);
    assert!(poll_reply(&mut flush).is_none());
    harness.confirm(2);
    assert!(matches!(poll_reply(&mut flush), Some(Ok(()))));
}

#[test]
fn each_batch_has_its_receipt_and_its_failure() {
    let mut harness = ProducerHarness::attached(by_key(|config| config.send_timeout = SECOND));
    let sends = push_all(&mut harness, "a1 b2 a3 b4");
    assert_eq!(harness.transmit().len(), 2);
    harness.confirm(2);
    assert_eq!((id_of(&sends[0]).batch_index(), id_of(&sends[2]).batch_index()), (Some(0), Some(1)));
    assert!(is_pending(&sends[1]) && is_pending(&sends[3]));
    harness.pass(SECOND);
    assert_eq!([&sends[1], &sends[3]].map(failure), [(ErrorKind::TimedOut, true); 2]);
    harness.assert_empty();
}

#[test]
fn a_send_timeout_takes_what_is_in_open_batches_too() {
    let mut harness = ProducerHarness::new(by_key(|config| config.send_timeout = Duration::from_millis(50)));
    let sends = push_all(&mut harness, "a1 b2 a3");
    harness.pass(Duration::from_millis(50));
    assert_eq!(sends.iter().map(failure).collect::<Vec<_>>(), [(ErrorKind::TimedOut, false); 3]);
    harness.assert_empty();
}
