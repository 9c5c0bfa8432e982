//! What goes out together, in which order, and how large it may be.

use std::cell::Cell;

use pulsar_native::machine::{Dirty, EndpointMachine as _};

use super::*;

#[test]
fn batches_are_closed_by_count_and_by_bytes() {
    let mut harness = ProducerHarness::attached(config(|config| config.batching_max_messages = 4));
    for at in 0..10 {
        let _ = harness.push(format!("{at}"));
    }
    assert_eq!(sizes(&harness.transmit()), [4, 4, 2]);

    let mut harness = ProducerHarness::attached(config(|config| config.batching_max_bytes = 1000));
    for size in [400, 400, 400, 600, 1, 2000, 10] {
        let _ = harness.push(vec![0; size]);
    }
    // 400 + 400 + 400 does not fit; 400 + 600 is full; 1 + 2000 does not fit; 2000 passes alone.
    let sent = harness.transmit();
    assert_eq!((sizes(&sent), ids(&sent)), (vec![2, 2, 1, 1, 1], (0..7).collect::<Vec<_>>()));
}

#[test]
fn an_idle_connection_takes_the_batch_at_once_and_a_busy_one_lets_it_grow() {
    let mut harness = ProducerHarness::attached(ProducerConfig::default());
    let _ = harness.push(vec![b'a'; 3000]);
    let job = harness.producer.take_job(harness.now).expect("nothing is before it");
    let _ = (harness.push("b"), harness.push("c"));
    assert!(harness.producer.take_job(harness.now).is_none(), "the first is not out yet");
    harness.put(job);
    assert!(harness.producer.take_job(harness.now).is_none(), "it is sealed and not out yet");
    assert_eq!(sizes(&harness.transmit()), [1, 2]);
}

/// A job costs more than to sum a few bytes; many are not summed under the lock.
#[test]
fn few_framed_messages_are_stamped_without_a_job() {
    let mut harness = ProducerHarness::attached(unbatched());
    for (count, needs_job) in [(3, false), (20, true)] {
        (0..count).for_each(|_| drop(harness.push(vec![0; 100])));
        let job = harness.producer.take_job(harness.now);
        assert_eq!(job.is_some(), needs_job, "{count} messages");
        job.into_iter().for_each(|job| harness.put(job));
        let sent = harness.transmit();
        assert_eq!(sizes(&sent), vec![1; count]);
    }
}

#[test]
fn a_batch_lingers_as_long_as_it_is_told() {
    let mut harness =
        ProducerHarness::attached(config(|config| config.batching_max_publish_delay = Duration::from_millis(10)));
    harness.producer.take_dirty();
    let _ = harness.push("a");
    assert_eq!(harness.producer.take_dirty(), Dirty::AtDeadline);
    harness.pass(Duration::from_millis(9));
    let _ = harness.push("b");
    assert_eq!(harness.producer.take_dirty(), Dirty::Clean);
    assert!(harness.transmit().is_empty());
    harness.pass(Duration::from_millis(1));
    assert_eq!(sizes(&harness.transmit()), [2]);
}

#[test]
fn the_clock_is_read_once_a_batch() {
    let mut harness = ProducerHarness::attached(ProducerConfig::default());
    let reads = Cell::new(0);
    for _ in 0..1500 {
        let now = harness.now;
        let read = || {
            reads.set(reads.get() + 1);
            now
        };
        let _ = harness.producer.push(Message::new("m"), None, read).expect("room");
    }
    assert_eq!(reads.get(), 2);
}

#[test]
fn the_order_of_the_wire_is_the_order_of_the_calls() {
    let mut harness = ProducerHarness::attached(ProducerConfig::default());
    let _ = (harness.push("0"), harness.push("1"));
    let _ = harness.push(Message::new("2").with_deliver_after(SECOND));
    let _ = harness.push("3");
    let _ = harness.push(Message::new("100").with_sequence_id(100));
    let _ = harness.push("101");
    let _ = harness.push(Message::new("100").with_sequence_id(100));
    let _ = harness.push("102");
    let sent = harness.transmit();
    assert_eq!(sizes(&sent), [2, 1, 3, 1, 1], "what is delayed, and an id that does not grow, are alone");
    for sent in &sent {
        for (id, payload) in sent.ids.iter().zip(&sent.payloads) {
            assert_eq!(id.to_string().as_bytes(), payload);
        }
    }
    assert_eq!(sent[1].metadata.deliver_at_time_ms, Some(1_700_000_001_000));
    for id in [0, 2, 3, 100, 102] {
        harness.confirm(id);
    }
    harness.assert_empty();
}

#[test]
fn a_message_kept_out_of_batches_is_alone_in_its_place() {
    let mut harness =
        ProducerHarness::attached(config(|config| config.batching_max_publish_delay = Duration::from_secs(1)));
    let _ = (harness.push("0"), harness.push("1"));
    let _ = harness.push(Message::new("2").with_batching(false).with_property("p", "v"));
    assert_eq!(sizes(&harness.transmit()), [2, 1], "the open batch does not wait any longer");
    let _ = (harness.push("3"), harness.push(Message::new("4").with_batching(true)));
    let _ = harness.push(Message::new(vec![b'5'; 100_000]).with_batching(false));
    let _ = harness.push(Message::new("6").with_batching(false).with_batching(true));
    let _ = harness.push("7");
    harness.pass(SECOND);
    let sent = harness.transmit();
    assert_eq!((sizes(&sent), ids(&sent)), (vec![2, 1, 2], (3..8).collect::<Vec<_>>()));
    assert_eq!(sent[2].payloads, ["6", "7"]);
}

#[test]
fn a_message_kept_out_of_batches_keeps_its_place_before_the_first_attach() {
    let mut harness = ProducerHarness::new(ProducerConfig::default());
    for (text, batching) in [("0", true), ("1", true), ("2", false), ("3", false), ("4", true)] {
        let _ = harness.push(Message::new(text).with_batching(batching));
    }
    harness.attach(-1);
    let sent = harness.transmit();
    assert_eq!((sizes(&sent), ids(&sent)), (vec![2, 1, 1, 1], (0..5).collect::<Vec<_>>()));
    let payloads: Vec<_> = sent.iter().flat_map(|sent| sent.payloads.clone()).collect();
    assert_eq!(payloads, ["0", "1", "2", "3", "4"]);
}

#[test]
fn an_id_below_what_the_broker_knows_is_alone() {
    let mut harness = ProducerHarness::new(ProducerConfig::default());
    harness.attach(10);
    let _ = (harness.push(Message::new("a").with_sequence_id(9)), harness.push("b"), harness.push("c"));
    let sent = harness.transmit();
    assert_eq!((sizes(&sent), ids(&sent)), (vec![1, 2], vec![9, 11, 12]));
}

#[test]
fn seal_jobs_may_come_back_in_any_order() {
    let mut harness = ProducerHarness::attached(config(|config| config.batching_max_messages = 2));
    for at in 0..6 {
        let _ = harness.push(vec![at; 3000]);
    }
    let mut jobs: Vec<_> = std::iter::from_fn(|| harness.producer.take_closed_job(|| harness.now)).collect();
    assert_eq!(jobs.len(), 3);
    harness.put(jobs.remove(2));
    assert!(harness.transmit().is_empty(), "nothing overtakes");
    harness.put(jobs.remove(0));
    assert_eq!(ids(&harness.transmit()), [0, 1]);
    harness.put(jobs.remove(0));
    assert_eq!(ids(&harness.transmit()), [2, 3, 4, 5]);
}

#[test]
fn a_small_batch_is_sealed_when_it_is_closed_and_overtakes_no_larger_one() {
    let mut harness = ProducerHarness::attached(config(|config| config.batching_max_messages = 2));
    let all: Vec<_> = [3000, 3000, 100, 100, 100].map(|bytes| harness.push(vec![b'x'; bytes])).into();
    let large = harness.producer.take_closed_job(|| harness.now).expect("the larger one");
    assert!(!harness.producer.has_closed_job(), "the small one needs none");
    assert!(harness.transmit().is_empty(), "nothing overtakes");
    harness.put(large);
    assert!(harness.producer.take_job(harness.now).is_none(), "what is before the last message is not out yet");
    let sent = harness.transmit();
    assert_eq!((sizes(&sent), ids(&sent)), (vec![2, 2, 1], vec![0, 1, 2, 3, 4]));
    sent.iter().for_each(|sent| harness.confirm(sent.head.sequence_id));
    assert!(!all.iter().any(is_pending));
    harness.assert_empty();
}

/// A job drops the payloads that a lock must not be held for.
#[test]
fn many_payloads_to_be_dropped_are_dropped_by_a_job() {
    let mut harness = ProducerHarness::attached(config(|config| config.batching_max_messages = 2));
    let shared = bytes::Bytes::from(vec![1; 10]);
    let before = (0..100).position(|_| {
        let _ = (harness.push(shared.clone()), harness.push(shared.clone()));
        harness.producer.has_closed_job()
    });
    assert_eq!(before, Some(32), "two of each batch wait, until there are 64");
    assert_eq!(sizes(&harness.transmit()), vec![2; 33]);
}

#[test]
fn large_messages_are_sealed_outside_the_lock_and_keep_their_place() {
    let mut harness = ProducerHarness::attached(unbatched());
    let _ = harness.push(vec![1; 100_000]);
    let _ = harness.push("small");
    assert_eq!(sizes(&harness.transmit()), [1, 1]);
    let all: Vec<_> = (0..3).map(|_| harness.push(vec![2; 20_000])).collect();
    assert_eq!(ids(&harness.transmit()), [2, 3, 4]);
    assert!(all.iter().all(is_pending));
}

#[cfg(feature = "lz4")]
#[test]
fn batches_and_single_messages_are_compressed_where_it_helps() {
    use pulsar_native::wire::compress::Compression;
    for batching in [true, false] {
        let mut harness = ProducerHarness::attached(config(|config| {
            config.compression = Compression::Lz4;
            config.batching = batching;
        }));
        let now = harness.now;
        let _ = harness.producer.push(Message::new(vec![7; 10_000]), None, || now).expect("room");
        let _ = harness.producer.push(Message::new("short"), None, || now).expect("room");
        let mut tx = TxBuf::new();
        while let Some(job) = harness.producer.take_job(harness.now) {
            harness.put(job);
        }
        let mut asks = Vec::new();
        let _ = harness.producer.poll_transmit(&mut Outbox::new(&mut tx, usize::MAX, &mut asks), harness.now);
        assert!(tx.len() < 1000, "{} bytes", tx.len());
    }
}

/// By the lengths of the SEND frames: of a message by itself, which is framed on acceptance where it is not compressed,
/// and of two in a batch, whose records are 3 * 4 bytes of lengths and metadata longer than their payloads.
#[cfg(feature = "lz4")]
#[test]
fn what_is_above_the_smallest_size_is_compressed() {
    use pulsar_native::wire::compress::Compression;
    let frame_bytes = |min_bytes, payloads: &[usize]| {
        let mut harness = ProducerHarness::attached(config(|config| {
            config.compression = Compression::Lz4;
            config.compress_min_msg_body_size = min_bytes;
            config.batching = payloads.len() > 1;
        }));
        let now = harness.now;
        for bytes in payloads {
            let _ = harness.producer.push(Message::new(vec![7; *bytes]), None, || now).expect("room");
        }
        while let Some(job) = harness.producer.take_job(harness.now) {
            harness.put(job);
        }
        let mut tx = TxBuf::new();
        let mut asks = Vec::new();
        let _ = harness.producer.poll_transmit(&mut Outbox::new(&mut tx, usize::MAX, &mut asks), harness.now);
        tx.len()
    };
    for bytes in [300, 4096, 5000, 16 * 1024, 40_000] {
        let is_compressed = |min_bytes| frame_bytes(min_bytes, &[bytes]) < bytes;
        assert!(is_compressed(0) && is_compressed(bytes - 1), "{bytes}");
        assert!(!is_compressed(bytes) && !is_compressed(usize::MAX), "{bytes}");
        // Of a batch the whole counts, not each message.
        let batch = [bytes / 2, bytes / 2];
        assert!(frame_bytes(bytes, &batch) < bytes && frame_bytes(bytes + 100, &batch) > bytes, "{bytes}");
    }
}

#[test]
fn what_is_too_large_fails_alone() {
    let mut harness = ProducerHarness::new(config(|config| config.batching_max_bytes = 100_000));
    harness.peer.max_message_size = 10_000;
    let unknown = harness.push(vec![0; 20_000]);
    harness.attach(-1);
    let fits = [harness.push("a"), harness.push("b")];
    let now = harness.now;
    let refused = harness.producer.push(Message::new(vec![0; 10_001]), None, || now);
    match refused {
        Err(PushError::Refused(error, rejected)) => {
            assert_eq!((error.error().kind(), error.may_be_stored()), (ErrorKind::MessageTooLarge, false));
            assert_eq!(rejected.message.payload().len(), 10_001);
        }
        other => panic!("{other:?}"),
    }
    // The payload fits, payload and metadata do not.
    let barely = harness.push(vec![0; 9_990]);
    let sent = harness.transmit();
    assert_eq!(failure(&unknown), (ErrorKind::MessageTooLarge, false));
    assert_eq!(failure(&barely), (ErrorKind::MessageTooLarge, false));
    assert_eq!(sizes(&sent), [2]);
    harness.confirm(sent[0].head.sequence_id);
    assert!(fits.iter().all(|send| !is_pending(send)));
    harness.assert_empty();
}

#[test]
fn batches_stay_below_the_limit_of_the_broker() {
    let mut harness = ProducerHarness::attached(config(|config| config.batching_max_bytes = 1 << 30));
    harness.peer.max_message_size = 10_000;
    harness.detach();
    harness.attach(-1);
    for _ in 0..100 {
        let _ = harness.push(Message::new(vec![0; 100]).with_property("a".repeat(100), "b".repeat(100)));
    }
    let sent = harness.transmit();
    assert_eq!(ids(&sent).len(), 100);
    assert!(sent.len() > 3 && sent.iter().all(|sent| sent.raw.len() <= 10_000 + 500));
}

#[test]
fn a_long_key_does_not_cost_the_batch_its_room() {
    let mut harness = ProducerHarness::attached(config(|config| config.batching_max_bytes = 1 << 30));
    harness.peer.max_message_size = 100_000;
    harness.detach();
    harness.attach(-1);
    // The metadata of a batch repeats the key of its first message; a frame has 10 KiB to spare for it.
    let _ = (
        harness.push(Message::new("a").with_key("k".repeat(50_000))),
        harness.push(vec![0; 98_000]),
        harness.push("b"),
    );
    let sent = harness.transmit();
    assert_eq!(sizes(&sent), [1, 2]);
    assert!(sent.iter().all(|sent| sent.raw.len() <= 100_000 + 10_240));
}
