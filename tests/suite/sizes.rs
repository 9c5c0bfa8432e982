//! Payloads that are larger before compression than one side takes.

use super::unreadable::unreadable;
use super::*;
use pulsar_native::{Compression, SeekTo, UnreadableReason};

const MIB: usize = 1024 * 1024;

/// The default of `max_uncompressed_size`, bytes.
const LIMIT: usize = 80 * MIB;

fn blanks(bytes: usize) -> Vec<u8> {
    vec![b' '; bytes]
}

async fn producer(builder: ProducerBuilder) -> Producer {
    created(builder.compression(Compression::Lz4)).await
}

async fn consumer(builder: ConsumerBuilder) -> Consumer {
    subscribed(builder.initial_position(InitialPosition::Earliest)).await
}

pub async fn a_send_above_the_limit_is_refused(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("refused");
    let mut listener = consumer(client.consumer(&topic, "s")).await;
    for batching in [true, false] {
        for (limit, producer) in [
            (LIMIT, producer(client.producer(&topic).batching(batching)).await),
            (100_000, producer(client.producer(&topic).batching(batching).max_uncompressed_size(100_000)).await),
        ] {
            let refused = within("the refusal", producer.send(blanks(limit + 1))).await.expect_err("too large");
            assert_eq!((refused.error().kind(), refused.may_be_stored()), (ErrorKind::MessageTooLarge, false));
            let text = refused.to_string();
            for named in [limit.to_string(), (limit + 1).to_string(), "max_uncompressed_size".into(), topic.clone()] {
                assert!(text.contains(&named), "{text}");
            }
            let fits = limit.min(5 * MIB);
            send(&producer, blanks(fits)).await;
            assert_eq!(receive(&mut listener).await.payload().len(), fits);
        }
    }
}

pub async fn a_batch_is_closed_before_the_limit(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("batches");
    let builder = client.producer(&topic).max_uncompressed_size(100_000).batching_max_bytes(10 * MIB);
    let producer = producer(builder.batching_max_publish_delay(Duration::from_secs(5))).await;
    let mut consumer = consumer(client.consumer(&topic, "s").max_uncompressed_size(100_000)).await;
    let mut events = consumer.events();
    let mut pending = Vec::new();
    for _ in 0..30 {
        pending.push(within("capacity", producer.enqueue(blanks(9_000))).await.expect("accepted"));
    }
    within("the flush", producer.flush()).await.expect("a clean flush");
    let mut entries = BTreeSet::new();
    for one in pending {
        let id = within("the receipt", one).await.expect("stored");
        entries.insert((id.ledger_id(), id.entry_id()));
    }
    assert_eq!(entries.len(), 3, "eleven messages fit a batch");
    assert_eq!(receive_all(&mut consumer, 30).await.len(), 30);
    assert!(events.try_recv().is_none());
}

pub async fn above_the_limit_is_reported_and_read_with_a_higher_one(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("hundred");
    let large = blanks(100 * MIB);
    let producer = producer(client.producer(&topic).max_uncompressed_size(large.len())).await;
    let mut low = consumer(client.consumer(&topic, "s")).await;
    let mut events = low.events();
    let id = send(&producer, large.clone()).await;
    send(&producer, "after").await;
    let after = receive(&mut low).await;
    assert_eq!(after.to_string_lossy(), "after");
    let message = unreadable(&mut events).await;
    let expected = |reason| match reason {
        UnreadableReason::TooLarge { uncompressed_bytes, limit_bytes, .. } => (uncompressed_bytes, limit_bytes),
        other => panic!("{other:?}"),
    };
    assert_eq!((expected(message.reason()), message.id()), ((large.len(), LIMIT), id.clone()));
    assert_eq!((message.codec(), message.uncompressed_size() as usize), (1, large.len()));
    target.confirm(&low, &after).await;
    until("only that to be left", || target.subscription(&topic, "s"), |seen| seen.backlog == 1).await;
    within("the close", low.close()).await.expect("closed");

    let mut high = consumer(client.consumer(&topic, "s").max_uncompressed_size(large.len())).await;
    let message = receive(&mut high).await;
    assert!(message.id() == id && message.payload() == large);
    target.confirm(&high, &message).await;
    drained(target, &topic, "s").await;
}

/// What it passes counts as read.
pub async fn a_reader_passes_what_is_above_its_limit(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("reader");
    let large = blanks(200_000);
    let producer = producer(client.producer(&topic)).await;
    let id = send(&producer, large.clone()).await;
    send(&producer, "after").await;
    let builder = client.reader(&topic, SeekTo::Earliest);
    let mut low = within("a reader", builder.clone().max_uncompressed_size(100_000).create()).await.expect("a reader");
    let mut events = low.events();
    assert_eq!(within("a message", low.read_next()).await.expect("a message").to_string_lossy(), "after");
    let message = unreadable(&mut events).await;
    assert_eq!((message.id(), message.uncompressed_size() as usize), (id, large.len()));
    assert!(!within("an answer", low.has_next()).await.expect("an answer"));
    let mut high = within("a reader", builder.max_uncompressed_size(large.len()).create()).await.expect("a reader");
    assert!(within("a message", high.read_next()).await.expect("a message").payload() == large);
}
