//! Readers of topics that a real broker has compacted or truncated.

use pulsar_native::{ReadUntil, Reader, SeekTo};

use crate::broker::Real;
use crate::runner::Test;
use crate::suite::target::Cluster;
use crate::suite::*;

pub const TESTS: &[Test] = &[
    ("readers::compacted_topics", |real| Box::pin(compacted_topics(real))),
    ("readers::tombstones_at_the_end", |real| Box::pin(tombstones_at_the_end(real))),
    ("readers::truncated_topics", |real| Box::pin(truncated_topics(real))),
    ("readers::ranges_of_keys", |real| Box::pin(ranges_of_keys(real))),
];

async fn has_next(reader: &mut Reader) -> bool {
    within("an answer", reader.has_next()).await.expect("an answer")
}

async fn read_all(reader: &mut Reader) -> Vec<String> {
    let mut texts = Vec::new();
    while has_next(reader).await {
        let message = within("a message", reader.read_next()).await.expect("a message");
        texts.push(format!("{}={}", message.key().unwrap_or_default(), message.to_string_lossy()));
    }
    texts
}

fn keyed(key: &str, value: &str) -> Message {
    Message::new(value.to_owned()).with_key(key)
}

async fn compact(real: &Real, topic: &str) {
    let look = async || real.admin.internal_stats(topic).await["compactedLedger"]["ledgerId"].as_i64();
    let before = look().await;
    real.admin.change("PUT", topic, "/compaction", "").await;
    until("the compaction", look, |now| *now != before).await;
}

/// All that is stored goes. The ledger that is written to stays, so that there has to be another one.
async fn truncate(real: &Real, topic: &str) {
    real.unload(topic).await;
    let look = async || {
        real.admin.change("DELETE", topic, "/truncate", "").await;
        real.admin.internal_stats(topic).await["numberOfEntries"].as_u64()
    };
    until("the topic to be empty", look, |entries| *entries == Some(0)).await;
}

/// Compacted from each start, with and without batches; then more behind the horizon.
async fn compacted_topics(real: Real) {
    let target = real.target();
    let client = target.client().await;
    for batching in [false, true] {
        let topic = target.topic("reader-compacted");
        let producer = created(client.producer(&topic).batching(batching)).await;
        let values = [("a", "1"), ("b", "1"), ("a", "2"), ("c", "1"), ("b", "2"), ("a", "3")];
        let ids = send_all(&producer, values.map(|(key, value)| keyed(key, value))).await;
        compact(&real, &topic).await;
        let compacted = |start: SeekTo| client.reader(&topic, start).read_compacted(true).create();
        let mut reader = within("a reader", compacted(SeekTo::Earliest)).await.expect("a reader");
        assert_eq!(read_all(&mut reader).await, ["c=1", "b=2", "a=3"], "batching {batching}");
        assert!(!has_next(&mut reader).await);
        let mut ending = within("a reader", compacted(SeekTo::Earliest)).await.expect("a reader");
        let mut messages = within("the end to be known", ending.until(ReadUntil::Now)).await.expect("a stream");
        for value in ["1", "2", "3"] {
            let message = within("a message", messages.next()).await.expect("not the end").expect("a message");
            assert_eq!(message.to_string_lossy(), value, "batching {batching}");
        }
        assert!(within("the end", messages.next()).await.is_none());
        drop(messages);
        let after = SeekTo::Message { id: ids[4].clone(), inclusive: false };
        let mut part = within("a reader", compacted(after.clone())).await.expect("a reader");
        assert_eq!(read_all(&mut part).await, ["a=3"], "batching {batching}");
        let mut end = within("a reader", compacted(SeekTo::Latest)).await.expect("a reader");
        assert!(!has_next(&mut end).await);
        send(&producer, keyed("d", "1")).await;
        for reader in [&mut reader, &mut part, &mut end] {
            assert_eq!(read_all(reader).await, ["d=1"], "batching {batching}");
        }
        within("the seek", reader.seek(SeekTo::Earliest)).await.expect("moved");
        assert_eq!(read_all(&mut reader).await, ["c=1", "b=2", "a=3", "d=1"]);
        within("the seek", reader.seek(SeekTo::Latest)).await.expect("moved");
        assert!(!has_next(&mut reader).await);
        within("the seek", reader.seek(after)).await.expect("moved");
        assert_eq!(read_all(&mut reader).await, ["a=3", "d=1"]);
    }
}

/// The last message deletes its key: the compaction takes both out, and the last of what is left is the end.
async fn tombstones_at_the_end(real: Real) {
    let target = real.target();
    let client = target.client().await;
    for batching in [false, true] {
        let topic = target.topic("reader-tombstones");
        let producer = created(client.producer(&topic).batching(batching)).await;
        send_all(&producer, [keyed("a", "1"), keyed("b", "1")]).await;
        send_all(&producer, [keyed("b", "")]).await;
        compact(&real, &topic).await;
        let compacted = || client.reader(&topic, SeekTo::Earliest).read_compacted(true).create();
        let mut reader = within("a reader", compacted()).await.expect("a reader");
        assert_eq!(read_all(&mut reader).await, ["a=1"], "batching {batching}");
        assert!(!has_next(&mut reader).await);
        send_all(&producer, [keyed("a", "")]).await;
        assert_eq!(read_all(&mut reader).await, ["a="], "behind the horizon it is there");
        compact(&real, &topic).await;
        assert!(!has_next(&mut reader).await);
        let mut fresh = within("a reader", compacted()).await.expect("a reader");
        assert!(read_all(&mut fresh).await.is_empty(), "batching {batching}");
        send(&producer, keyed("c", "1")).await;
        for reader in [&mut reader, &mut fresh] {
            assert_eq!(read_all(reader).await, ["c=1"], "batching {batching}");
        }
    }
}

async fn truncated_topics(real: Real) {
    let target = real.target();
    let client = target.client().await;
    let topic = target.topic("reader-truncated");
    let producer = created(client.producer(&topic).batching(false)).await;
    let ids = send_all(&producer, (0..5).map(|number| keyed("k", &number.to_string()))).await;
    let mut half = within("a reader", client.reader(&topic, SeekTo::Earliest).create()).await.expect("a reader");
    let message = within("a message", half.read_next()).await.expect("a message");
    assert_eq!(message.id(), ids[0]);
    truncate(&real, &topic).await;
    let before = SeekTo::Message { id: ids[1].clone(), inclusive: true };
    for start in [SeekTo::Earliest, SeekTo::Latest, before, SeekTo::PublishTime(SystemTime::UNIX_EPOCH)] {
        let mut reader = within("a reader", client.reader(&topic, start.clone()).create()).await.expect("a reader");
        assert!(!has_next(&mut reader).await, "{start:?}");
        let id = send(&producer, keyed("k", "more")).await;
        let message = within("a message", reader.read_next()).await.expect("a message");
        assert_eq!(message.id(), id, "{start:?}");
        assert!(!has_next(&mut reader).await, "{start:?}");
        truncate(&real, &topic).await;
        assert!(!has_next(&mut reader).await, "{start:?}");
    }
    // What it is to read goes while it reads.
    send_all(&producer, (0..50).map(|number| keyed("k", &number.to_string()))).await;
    let builder = client.reader(&topic, SeekTo::Earliest).receiver_queue_size(1);
    let mut reader = within("a reader", builder.create()).await.expect("a reader");
    let mut messages = within("the end to be known", reader.until(ReadUntil::Now)).await.expect("a stream");
    within("a message", messages.next()).await.expect("not the end").expect("a message");
    truncate(&real, &topic).await;
    let mut read = 1;
    while let Some(message) = within("a message, or the end", messages.next()).await {
        message.expect("a message");
        read += 1;
    }
    assert!(read < 50, "{read} were sent ahead");
}

async fn ranges_of_keys(real: Real) {
    let target = real.target();
    let client = target.client().await;
    let topic = target.topic("reader-ranges");
    let producer = created(client.producer(&topic).batching(false)).await;
    let keys: Vec<_> = (0..40).map(|number| number.to_string()).collect();
    let messages: Vec<_> = keys.iter().map(|key| keyed(key, "v")).collect();
    send_all(&producer, messages).await;
    let mut read = Vec::new();
    for range in [0..=32767, 32768..=65535] {
        let builder = client.reader(&topic, SeekTo::Earliest).key_hash_range([range]);
        let mut reader = within("a reader", builder.create()).await.expect("a reader");
        let next = async |reader: &mut Reader| tokio::time::timeout(Duration::from_secs(2), reader.read_next()).await;
        let before = read.len();
        while let Ok(message) = next(&mut reader).await {
            read.push(message.expect("a message").key().unwrap_or_default().to_owned());
        }
        assert!(read.len() > before, "some in each half");
    }
    read.sort_by_key(|key| key.parse::<u32>().expect("a number"));
    assert_eq!(read, keys, "each once");
}
