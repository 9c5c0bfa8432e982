//! Messages that go out in several entries.

use super::*;

fn chunked(bytes: u32) -> ProducerConfig {
    config(|config| (config.batching, config.chunking, config.chunk_max_message_size) = (false, true, bytes))
}

/// Chunk id, number of chunks, size of the message, and payload of each.
fn chunks(sent: &[Sent]) -> Vec<(i32, i32, i32, &[u8])> {
    let of = |sent: &Sent| {
        let chunk = sent.metadata.chunk.as_deref().expect("a chunk");
        assert!(sent.head.is_chunk && sent.head.num_messages == 1 && sent.payloads.len() == 1);
        (chunk.chunk_id, chunk.num_chunks, chunk.total_bytes)
    };
    sent.iter()
        .map(|sent| (of(sent), &sent.payloads[0][..]))
        .map(|((id, num, total), bytes)| (id, num, total, bytes))
        .collect()
}

#[test]
fn a_large_message_goes_out_in_chunks_and_the_last_receipt_ends_it() {
    let mut harness = ProducerHarness::attached(chunked(4));
    let small = harness.push("0123");
    let large = harness.push(Message::new("0123456789").with_key("k").with_property("a", "b"));
    let behind = harness.push("x");
    let sent = harness.transmit();
    assert_eq!(ids(&sent), [0, 1, 1, 1, 2]);
    assert!(sent[0].metadata.chunk.is_none() && !sent[4].head.is_chunk);
    let expected: [(_, _, _, &[u8]); 3] = [(0, 3, 10, b"0123"), (1, 3, 10, b"4567"), (2, 3, 10, b"89")];
    assert_eq!(chunks(&sent[1..4]), expected);
    for chunk in &sent[1..4] {
        assert!(chunk.metadata.partition_key.is_some(), "each chunk has the key of its message");
        assert_eq!((chunk.metadata.compression, chunk.metadata.uncompressed_size), (0, 10));
    }
    harness.confirm(0);
    assert!(!is_pending(&small));
    harness.confirm(1);
    harness.confirm(1);
    assert!(is_pending(&large) && harness.producer.stats().pending_messages == 2);
    harness.confirm(1);
    let id = id_of(&large);
    assert_eq!((id.entry_id(), id.first_chunk().and_then(|first| first.entry_id())), (Some(3), Some(1)));
    assert_eq!(id.partition(), Some(2));
    harness.confirm(2);
    assert!(id_of(&behind).first_chunk().is_none());
    let stats = harness.producer.stats();
    assert_eq!((stats.confirmed_messages, stats.confirmed_entries), (3, 5));
    harness.assert_empty();
}

#[test]
fn a_chunk_is_as_large_as_the_broker_takes_it() {
    let config = config(|config| config.chunking = true);
    let mut harness = ProducerHarness::new(config);
    harness.peer.max_message_size = 1000;
    // Accepted before the limit is known.
    let early = harness.push(vec![b'a'; 2500]);
    harness.attach(-1);
    let late = harness.push(Message::new(vec![b'b'; 999]).with_property("name", "v".repeat(300)));
    let sent = harness.transmit();
    assert_eq!(ids(&sent), [0, 0, 0, 1, 1]);
    for sent in &sent {
        let entry = &sent.raw[8 + u32::from_be_bytes(sent.raw[4..8].try_into().expect("four bytes")) as usize..];
        let parts = EntryParts::split(entry).expect("an entry");
        assert!(parts.metadata.len() + parts.payload.len() <= 1000);
        let chunk = sent.metadata.chunk.as_deref().expect("a chunk");
        let is_last = chunk.chunk_id + 1 == chunk.num_chunks;
        assert!(is_last || parts.metadata.len() + parts.payload.len() > 980, "no space is given away");
    }
    for id in [0, 0, 0, 1, 1] {
        harness.confirm(id);
    }
    assert!(!is_pending(&early) && !is_pending(&late));
}

#[test]
fn chunks_without_a_receipt_are_sent_again_after_a_reconnect() {
    let mut harness = ProducerHarness::attached(chunked(2));
    let send = harness.push("012345");
    let first = harness.transmit();
    assert_eq!(first.len(), 3);
    harness.confirm(0);
    harness.detach();
    harness.attach(-1);
    let again = harness.transmit();
    assert_eq!(again.iter().map(|sent| &sent.raw).collect::<Vec<_>>(), [&first[1].raw, &first[2].raw]);
    harness.confirm(0);
    harness.confirm(0);
    let id = id_of(&send);
    assert_eq!((id.entry_id(), id.first_chunk().and_then(|first| first.entry_id())), (Some(2), Some(0)));
    harness.assert_empty();
}

#[test]
fn a_chunked_message_fails_as_one() {
    let mut harness = ProducerHarness::attached(chunked(2));
    let (overdue, refused, stored) = (harness.push("012345"), harness.push("012345"), harness.push("x"));
    assert_eq!(ids(&harness.transmit()), [0, 0, 0, 1, 1, 1, 2]);
    assert_eq!(harness.send_error(1, ServerCode::NOT_ALLOWED_ERROR), AfterNotification::Stay);
    assert_eq!(failure(&refused), (ErrorKind::NotAllowed, false));
    harness.confirm(0);
    harness.pass(30 * SECOND);
    assert_eq!(failure(&overdue), (ErrorKind::TimedOut, true));
    // Receipts of a message that has failed are stale.
    let _ = stored;
    harness.confirm(0);
    assert_eq!(harness.producer.stats().failed_messages, 3);
    harness.assert_empty();
}

#[test]
fn a_chunked_message_goes_out_between_batches() {
    let mut harness = ProducerHarness::new(config(|config| config.chunking = true));
    harness.peer.max_message_size = 1000;
    harness.attach(-1);
    for message in ["a".into(), "b".into(), "c".repeat(1500), "d".into(), "e".into()] {
        let _ = harness.push(message);
    }
    let sent = harness.transmit();
    assert_eq!((sizes(&sent), ids(&sent)), (vec![2, 1, 1, 2], vec![0, 1, 2, 2, 3, 4]));
}

#[cfg(feature = "lz4")]
#[test]
fn a_message_is_compressed_before_it_is_split() {
    let mut harness = ProducerHarness::new(config(|config| {
        (config.batching, config.chunking) = (false, true);
        config.compression = pulsar_native::Compression::Lz4;
    }));
    harness.peer.max_message_size = 6000;
    harness.attach(-1);
    // Shrinks below the limit, and then above it.
    let _ = harness.push(vec![7; 100_000]);
    let noise = (0..8000).scan(1u32, |state, _| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some((*state >> 24) as u8)
    });
    let noise: Vec<u8> = noise.collect();
    let payload: Vec<u8> = [noise, vec![0; 8000]].concat();
    let _ = harness.push(payload.clone());
    let sent = harness.transmit();
    assert_eq!(ids(&sent), [0, 1, 1]);
    assert!(sent[0].metadata.chunk.is_none());
    for chunk in &sent[1..] {
        assert_eq!((chunk.metadata.compression, chunk.metadata.uncompressed_size), (1, 16_000));
    }
    let joined: Vec<u8> = sent[1..].iter().flat_map(|sent| sent.payloads[0].to_vec()).collect();
    let total = sent[1].metadata.chunk.as_ref().expect("a chunk").total_bytes;
    assert_eq!(joined.len(), total as usize);
    let plain = pulsar_native::wire::compress::decompress(1, &joined.into(), 16_000, 1 << 20).expect("LZ4");
    assert_eq!(plain, payload);
}

#[test]
fn what_cannot_be_chunked_is_refused() {
    let mut harness = ProducerHarness::attached(chunked(1));
    let send = harness.push(vec![0; 70_000]);
    let _ = harness.transmit();
    assert_eq!(failure(&send), (ErrorKind::MessageTooLarge, false));
    for (change, option) in [
        ((true, false, 5), "chunk_max_message_size"),
        ((false, false, 5), "chunk_max_message_size"),
        ((true, true, 5), "chunk_max_message_size"),
    ] {
        let mut config = ProducerConfig::default();
        (config.batching, config.chunking, config.chunk_max_message_size) = change;
        let error = config.validate().expect_err(option);
        assert!(error.kind() == ErrorKind::InvalidArgument && error.to_string().starts_with(option), "{error}");
    }
}

/// A broker that deduplicates knows a message by its last chunk, and says so before it has stored copies of the others.
#[test]
fn a_duplicate_is_settled_before_the_copies_of_its_chunks() {
    let mut harness = ProducerHarness::attached(chunked(2));
    let sends = [harness.push("012345"), harness.push("012345"), harness.push("x")];
    assert_eq!(harness.transmit().len(), 7);
    harness.confirm(0);
    harness.detach();
    harness.attach(-1);
    assert_eq!(harness.transmit().len(), 6);
    let duplicate = |sequence_id| Receipt {
        producer_id: 7,
        sequence_id,
        highest_sequence_id: u64::MAX,
        ledger_id: u64::MAX,
        entry_id: u64::MAX,
    };
    for id in 0..2 {
        let receipt = duplicate(id);
        harness.producer.on_receipts(&[receipt], harness.now, &mut Deferred::new()).expect("it is in step");
        assert!(!is_pending(&sends[id as usize]));
    }
    let ids = sends[..2].iter().map(id_of).map(|id| (id.ledger_id(), id.first_chunk().and_then(|id| id.entry_id())));
    assert_eq!(ids.collect::<Vec<_>>(), [(None, Some(0)), (None, None)]);
    for id in [0, 1, 1, 2] {
        harness.confirm(id);
    }
    assert!(!is_pending(&sends[2]));
    assert_eq!(harness.producer.stats().stale_receipts, 3);
    harness.assert_empty();
}
