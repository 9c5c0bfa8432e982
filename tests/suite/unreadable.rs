//! Messages that this client cannot read: reported with all there is to know of them, and to be decided about.

use super::raw::{RAW_PRODUCER, RAW_PUBLISH_TIME_MS, RawEntry, publish};
use super::target::Role;
use super::*;
use pulsar_native::{
    ConsumerEvent, ConsumerEvents, DeadLetterPolicy, UnreadableMessage, UnreadableMessagePolicy, UnreadableReason,
};
use pulsar_native::{Outcome, pb};
use tokio::net::TcpStream;

/// The consumer's limit on the size before compression, bytes.
const LIMIT: usize = 1000;

/// Larger than that, as a block of so many bytes could be.
const DECLARED: u32 = 1001;

const STORED: &[u8] = b"stored, not read";

pub fn plain() -> pb::MessageMetadata {
    pb::MessageMetadata::default()
}

pub fn encrypted() -> pb::MessageMetadata {
    let key = |name: &str| pb::EncryptionKeys { key: name.into(), value: b"secret"[..].into(), ..Default::default() };
    let property = |key: &str, value: &str| pb::KeyValue { key: key.into(), value: value.into() };
    pb::MessageMetadata {
        encryption_keys: vec![key("first key"), key("second key")],
        encryption_algo: Some("RSA".into()),
        encryption_param: Some(b"parameter"[..].into()),
        properties: vec![property("p", "v"), property("q", "w")],
        partition_key: Some("the key".into()),
        ..plain()
    }
}

/// The first one: on a Shared subscription a broker keeps back those whose first one it did not deliver.
pub fn chunk() -> pb::MessageMetadata {
    let (uuid, num_chunks_from_msg) = (Some("raw-0".to_owned()), Some(3));
    // Less than is in it.
    let (total_chunk_msg_size, chunk_id) = (Some(1), Some(0));
    pb::MessageMetadata { uuid, num_chunks_from_msg, total_chunk_msg_size, chunk_id, ..plain() }
}

pub fn other_codec() -> pb::MessageMetadata {
    pb::MessageMetadata { compression: Some(9), uncompressed_size: Some(100), ..plain() }
}

pub fn other_codec_batch() -> pb::MessageMetadata {
    pb::MessageMetadata { num_messages_in_batch: Some(2), ..other_codec() }
}

/// LZ4 of `uncompressed_size` bytes.
pub fn large(uncompressed_size: u32) -> pb::MessageMetadata {
    pb::MessageMetadata { compression: Some(1), uncompressed_size: Some(uncompressed_size), ..plain() }
}

/// What is said of the entries of [`encrypted`], [`chunk`], [`other_codec`] and [`other_codec_batch`], in that order.
pub fn check_metadata(messages: &[UnreadableMessage]) {
    for message in messages {
        assert_eq!((message.producer_name(), message.id().batch_index()), (RAW_PRODUCER, None));
        let published = SystemTime::UNIX_EPOCH + Duration::from_millis(RAW_PUBLISH_TIME_MS);
        assert_eq!((message.publish_time(), message.id().topic()), (published, Some(message.topic())));
    }
    let [encrypted, chunk, single, batch] = messages else { panic!("{messages:?}") };
    assert_eq!(encrypted.reason(), UnreadableReason::Encrypted);
    assert_eq!(encrypted.encryption_key_names().collect::<Vec<_>>(), ["first key", "second key"]);
    assert_eq!(encrypted.properties().collect::<Vec<_>>(), [("p", "v"), ("q", "w")]);
    assert_eq!((encrypted.key(), encrypted.chunk(), encrypted.batch_size()), (Some("the key"), None, None));
    assert_eq!(chunk.reason(), UnreadableReason::InvalidChunk);
    assert_eq!((chunk.encryption_key_names().count(), chunk.codec()), (0, 0));
    let place = chunk.chunk().expect("a chunk");
    assert_eq!((place.uuid, place.index, place.count, place.total_bytes), ("raw-0", 0, 3, 1));
    for message in [single, batch] {
        assert!(matches!(message.reason(), UnreadableReason::Codec { number: 9, .. }), "{message:?}");
        assert_eq!((message.codec(), message.uncompressed_size()), (9, 100));
    }
    assert_eq!((single.batch_size(), batch.batch_size()), (None, Some(2)));
}

/// The message of an event that has to be about one.
pub fn as_unreadable(event: Option<ConsumerEvent>) -> UnreadableMessage {
    match event {
        Some(ConsumerEvent::Unreadable(message)) => message,
        other => panic!("not an unreadable message: {other:?}"),
    }
}

pub async fn unreadable(events: &mut ConsumerEvents) -> UnreadableMessage {
    as_unreadable(within("an event", events.recv()).await)
}

async fn store(target: &Target, topic: &str, entries: &[RawEntry<'_>]) {
    let stream = within("a connection", TcpStream::connect(target.broker_address())).await.expect("a connection");
    let token = Some(target.cluster().token(Role::Admin));
    within("the receipts", publish(stream, token, topic, entries)).await;
}

/// A consumer, once all that it cannot read is stored between two messages that it can.
async fn prepared(target: &Target, client: &Client, topic: &str, policy: UnreadableMessagePolicy) -> Consumer {
    let builder = client.consumer(topic, "s").subscription_type(SubscriptionType::Shared);
    let builder = builder.max_uncompressed_size(LIMIT).unreadable_message_policy(policy);
    let builder = builder.negative_ack_redelivery_delay(Duration::from_millis(100));
    let consumer = subscribed(builder).await;
    let kinds = [encrypted(), chunk(), other_codec(), other_codec_batch(), large(DECLARED)];
    let mut entries: Vec<RawEntry<'_>> = vec![(plain(), b"first")];
    entries.extend(kinds.map(|metadata| (metadata, STORED)));
    entries.push((plain(), b"last"));
    store(target, topic, &entries).await;
    consumer
}

/// All five are reported, in the order of the topic, and the first and the last message come.
async fn received(consumer: &mut Consumer, events: &mut ConsumerEvents) -> Vec<UnreadableMessage> {
    let messages = receive_all(consumer, 2).await;
    assert_eq!([messages[0].to_string_lossy(), messages[1].to_string_lossy()], ["first", "last"]);
    messages.iter().for_each(|message| consumer.ack(message).expect("acknowledged"));
    let mut found = Vec::new();
    for _ in 0..5 {
        found.push(unreadable(events).await);
    }
    check_metadata(&found[..4]);
    let reason = found[4].reason();
    let UnreadableReason::TooLarge { uncompressed_bytes, limit_bytes, .. } = reason else { panic!("{reason:?}") };
    assert_eq!((uncompressed_bytes, limit_bytes), (DECLARED as usize, LIMIT));
    assert!(found.iter().all(|message| message.payload() == STORED));
    assert!(events.try_recv().is_none(), "each is reported once");
    found
}

pub async fn reported_and_left_to_the_application(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("reported");
    let mut consumer = prepared(target, &client, &topic, UnreadableMessagePolicy::Report).await;
    let mut events = consumer.events();
    let found = received(&mut consumer, &mut events).await;
    assert!(found.iter().all(|message| !message.is_acknowledged() && message.topic() == topic));
    // A batch counts as the messages that it holds.
    let look = || target.subscription(&topic, "s");
    until("the acknowledgements", look, |seen| seen.unacked == 6).await;
    // Asked for again, by its id: it is reported again.
    let again = found[2].id();
    consumer.nack_id(&again).expect("noted");
    let mut waiting = Box::pin(consumer.receive());
    let message = tokio::select! {
        message = unreadable(&mut events) => message,
        message = &mut waiting => panic!("{message:?}"),
    };
    drop(waiting);
    assert_eq!((message.id(), message.reason()), (again, found[2].reason()));
    // Acknowledged, by message and by id.
    consumer.ack(found[0].message()).expect("acknowledged");
    for message in &found[1..] {
        let id = message.id();
        target.confirmed(consumer.ack_id_confirmed(&id), || consumer.acker().ack_id(&id)).await;
    }
    drained(target, &topic, "s").await;
}

pub async fn acknowledged_where_the_policy_says_so(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("acknowledged");
    let mut consumer = prepared(target, &client, &topic, UnreadableMessagePolicy::Acknowledge).await;
    let mut events = consumer.events();
    let found = received(&mut consumer, &mut events).await;
    assert!(found.iter().all(UnreadableMessage::is_acknowledged), "{found:?}");
    drained(target, &topic, "s").await;
}

/// Each goes to the dead-letter topic as it is stored, and so does what does not decompress and what is no batch.
pub async fn given_up_where_the_policy_says_so(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("given-up");
    let policy = DeadLetterPolicy::new(1).with_unreadable(true).with_initial_subscription("operators");
    let builder = client.consumer(&topic, "s").subscription_type(SubscriptionType::Shared).dead_letter_policy(policy);
    let mut consumer = subscribed(builder.max_uncompressed_size(LIMIT)).await;
    let no_batch = pb::MessageMetadata { num_messages_in_batch: Some(2), ..plain() };
    let kinds = [encrypted(), chunk(), other_codec(), other_codec_batch(), large(DECLARED), large(100), no_batch];
    let mut entries: Vec<RawEntry<'_>> = kinds.clone().map(|metadata| (metadata, STORED)).into();
    entries.push((plain(), b"last"));
    store(target, &topic, &entries).await;
    let last = receive(&mut consumer).await;
    assert_eq!(last.to_string_lossy(), "last");
    consumer.ack(&last).expect("acknowledged");

    let dead_topic = format!("{topic}-s-DLQ");
    let reasons = [
        "encrypted",
        "chunk",
        "compression codec 9",
        "compression codec 9",
        "max_uncompressed_size",
        "decompress",
        "batch",
    ];
    drained(target, &topic, "s").await;
    let letters = client.consumer(&dead_topic, "operators").initial_position(InitialPosition::Earliest);
    let mut letters = subscribed(letters).await;
    for (metadata, reason) in kinds.iter().zip(reasons) {
        let letter = receive(&mut letters).await;
        let property = |name| letter.property(name).unwrap_or_else(|| panic!("no {name} in {letter:?}"));
        assert!(property("DEAD_LETTER_REASON").contains(reason), "{}", property("DEAD_LETTER_REASON"));
        assert_eq!((letter.payload(), property("REAL_TOPIC")), (STORED, topic.as_str()));
        let own = metadata.properties.iter().map(|own| (own.key.as_str(), own.value.as_str()));
        own.for_each(|(name, value)| assert_eq!(property(name), value));
        assert_eq!(letter.key(), metadata.partition_key.as_deref());
        // `raw`, the name of the producer, is field 1 of the metadata.
        assert!(property("UNREADABLE_METADATA").starts_with("CgNyYXc"), "{}", property("UNREADABLE_METADATA"));
    }
    let mut events = consumer.events();
    for _ in 0..5 {
        let message = unreadable(&mut events).await;
        assert!(message.is_dead_letter() && !message.is_acknowledged(), "{message:?}");
    }
    assert_eq!(consumer.stats().dead_lettered_messages, 7);
}

pub async fn workers_go_on_after_what_they_cannot_read(target: &Target) {
    let client = target.client().await;
    for by_key in [false, true] {
        let topic = target.topic("workers");
        let mut consumer = prepared(target, &client, &topic, UnreadableMessagePolicy::Acknowledge).await;
        let (seen, told) = tokio::sync::mpsc::unbounded_channel();
        let mut told = told;
        let note = move |message: ReceivedMessage| {
            let text = message.to_string_lossy().into_owned();
            let sent = seen.send(text).is_ok();
            async move { if sent { Outcome::Ack } else { Outcome::Keep } }
        };
        let working = tokio::spawn(async move {
            match by_key {
                false => consumer.process(2, note).await,
                true => consumer.process_by_key(2, note).await,
            }
        });
        let mut texts = Vec::new();
        for _ in 0..2 {
            texts.push(within("a message", told.recv()).await.expect("it works"));
        }
        texts.sort();
        assert_eq!(texts, ["first", "last"]);
        drained(target, &topic, "s").await;
        working.abort();
    }
}
