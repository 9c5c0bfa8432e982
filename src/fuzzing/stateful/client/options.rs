//! Options of producers and consumers, and messages, as an application may choose them.

use std::time::SystemTime;

use super::keys::Key;
use super::*;
use crate::id::MessageId;
use crate::machine::consumer::{
    ConsumerConfig, IdleReason, InitialPosition, KeySharedPolicy, RedeliveryBackoff, SeekTo, SubscriptionType,
    TopicObserver,
};
use crate::machine::endpoint::attach_status::AttachState;
use crate::machine::producer::{AccessMode, BatchingType, Message, ProducerConfig, SendObserver};
use crate::schema::{SchemaInfo, SchemaType};
use crate::wire::compress::Compression;

/// The options of the producer of this number, and its key if it encrypts. They may contradict each other.
pub(super) fn producer(choices: &mut Choices<'_>, number: usize) -> (ProducerConfig, Option<Arc<Key>>) {
    let (kind, by_key) = (choices.byte(), choices.below(4) == 3);
    let mut config = ProducerConfig {
        batching: by_key || choices.flag(),
        batching_type: if by_key { BatchingType::KeyBased } else { BatchingType::Default },
        batching_max_messages: 1 + choices.below(5) as u32,
        batching_max_publish_delay: Duration::from_millis(choices.below(3) as u64 * 20),
        max_pending_messages: 1 + choices.below(40),
        send_timeout: TIMEOUT,
        operation_timeout: TIMEOUT,
        chunking: false,
        ..ProducerConfig::default()
    };
    if kind & 1 == 1 {
        (config.chunking, config.batching) = (true, false);
        config.chunk_max_message_size = *choices.pick(&[150, 0, 60]);
    }
    if kind & 2 == 2 {
        let codec = *choices.pick(&Compression::ALL);
        config.compression = if codec.is_built_in() { codec } else { Compression::None };
        config.compress_min_msg_body_size = choices.below(3) * 100;
    }
    if kind & 4 == 4 {
        config.name = Some(format!("named-{number}"));
        config.is_name_generated = choices.flag();
        config.properties = vec![("k".to_owned(), "v".to_owned())];
        config.initial_sequence_id = choices.flag().then(|| choices.number());
        config.initial_subscription = choices.flag().then(|| "first".to_owned());
    }
    if kind & 8 == 8 {
        config.max_pending_bytes = 200 + 10 * choices.below(200);
        config.stall_timeout = Duration::from_secs(choices.below(4) as u64);
        config.batching_max_bytes = 1 + choices.below(250);
    }
    if kind & 16 == 16 {
        config.access_mode = *choices.pick(&[AccessMode::Exclusive, AccessMode::ExclusiveWithFencing]);
    }
    if kind & 32 == 32 {
        config.schema = Some(schema());
    }
    let key = (kind & 64 == 64).then(|| Arc::new(Key::default()));
    #[cfg(feature = "encryption")]
    if let Some(key) = &key {
        config.encryption = Some(key.clone());
    }
    if kind & 128 == 128 {
        match choices.below(8) {
            0 => config.name = Some(" ".to_owned()),
            1 => config.batching_max_messages = 0,
            2 => config.batching_max_bytes = 0,
            3 => (config.chunking, config.batching) = (true, true),
            4 => config.max_pending_messages = 0,
            5 => config.compression_level = Some(choices.number() as i32),
            6 => config.initial_subscription = Some(String::new()),
            _ => config.max_uncompressed_size = 0,
        }
    }
    (config, key)
}

fn schema() -> SchemaInfo {
    SchemaInfo::new("s", SchemaType::String, Bytes::new())
}

/// The options of the consumer of this number. They may contradict each other.
pub(super) fn consumer(choices: &mut Choices<'_>, number: u64) -> ConsumerConfig {
    let kind = choices.byte();
    // Each has a subscription of its own, so that none keeps another one out.
    let mut config = ConsumerConfig::new(format!("s{number}"));
    config.subscription_type = *choices.pick(&[
        SubscriptionType::Exclusive,
        SubscriptionType::Shared,
        SubscriptionType::KeyShared,
        SubscriptionType::Failover,
    ]);
    config.initial_position = *choices.pick(&[InitialPosition::Earliest, InitialPosition::Latest]);
    config.receiver_queue_size = *choices.pick(&[10, 1, 0, 1000]);
    config.receiver_queue_size_max = *choices.pick(&[0, 50]);
    if config.receiver_queue_size == 0 {
        config.receiver_queue_size_max = 0;
    }
    config.ack_timeout = choices.flag().then_some(Duration::from_secs(2));
    config.batch_index_acknowledgment = choices.flag();
    config.negative_ack_redelivery_backoff = RedeliveryBackoff::constant(choices.time());
    config.operation_timeout = TIMEOUT;
    config.expire_time_of_incomplete_chunked_message = Duration::from_secs(choices.below(3) as u64 * 20);
    config.auto_ack_incomplete_chunked_messages = choices.flag();
    config.max_pending_chunked_messages = 1 + choices.below(3);
    if kind & 1 == 1 {
        config.durable = false;
        config.subscription_type = SubscriptionType::Exclusive;
    }
    if kind & 2 == 2 {
        let backoff = RedeliveryBackoff::new(choices.time(), Duration::from_secs(60));
        let backoff = backoff.with_multiplier(1.0 + f64::from(choices.byte()) / 64.0);
        config.negative_ack_redelivery_backoff = backoff.with_jitter(f64::from(choices.byte()) / 200.0);
        config.ack_timeout_redelivery_backoff = choices.flag().then(RedeliveryBackoff::default);
    }
    if kind & 4 == 4 {
        config.acknowledgment_group_time = Duration::from_millis(choices.below(3) as u64 * 500);
        config.max_acknowledgment_group_size = 1 + choices.below(4);
    }
    if kind & 8 == 8 {
        config.key_shared_policy = match choices.flag() {
            true => KeySharedPolicy::Sticky(vec![0..=1000, 900 + choices.below(256) as u16..=65535]),
            false => KeySharedPolicy::AutoSplit { allow_out_of_order: true },
        };
    }
    if kind & 16 == 16 {
        config.name = Some(format!("c{number}"));
        config.properties = vec![("k".to_owned(), "v".to_owned())];
        config.subscription_properties.clone_from(&config.properties);
        config.priority_level = choices.below(3) as i32;
        config.read_compacted = choices.flag();
        config.replicate_subscription_state = choices.flag().then(|| choices.flag());
        config.recreated_position = choices.flag().then_some(InitialPosition::Earliest);
    }
    if kind & 32 == 32 {
        config.schema = Some(schema());
    }
    if kind & 64 == 64 {
        config.stall_timeout = Duration::from_secs(1 + choices.below(4) as u64);
    }
    if kind & 128 == 128 {
        match choices.below(8) {
            0 => config.subscription = " ".to_owned(),
            1 => config.name = Some(String::new()),
            2 => config.priority_level = -1,
            3 => config.ack_timeout = Some(Duration::from_millis(1)),
            4 => config.max_pending_chunked_messages = 100_000,
            5 => config.max_acknowledgment_group_size = 0,
            6 => {
                let backoff = RedeliveryBackoff::new(Duration::from_secs(2), Duration::from_secs(1));
                config.negative_ack_redelivery_backoff = backoff.with_multiplier(0.5).with_jitter(2.0);
            }
            _ => config.max_uncompressed_size = 0,
        }
    }
    config
}

/// A message with any of what a message may have.
pub(super) fn message(choices: &mut Choices<'_>) -> Message {
    let key = choices.below(4);
    let size = if choices.below(16) == 15 { 3000 } else { choices.below(200) };
    let mut message = Message::new(Bytes::from(vec![b'm'; size])).with_key(format!("k{key}"));
    match choices.below(32) {
        0 | 1 => message = message.with_batching(false),
        2 | 3 => message = message.with_sequence_id(choices.number()),
        4 | 5 => message = message.with_deliver_after(choices.time()),
        6 => message = message.with_key_bytes(choices.bytes()),
        7 => message = message.with_null_key(),
        8 => message = message.with_ordering_key(choices.bytes().to_vec()),
        9 => message = message.with_property("name", "value").with_properties([("more", "values")]),
        10 => message = message.with_event_time(time(choices)),
        11 => message = message.with_deliver_at(time(choices)),
        12 => message = message.with_null_value(),
        13 => message = message.with_replication_clusters(["here"]),
        14 => message = message.with_replication_disabled(),
        15 => message = message.with_schema_id(choices.bytes().to_vec()),
        16 => {
            let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
            let context = crate::TraceContext::new(parent).expect("a traceparent");
            message = message.with_trace_context(context.clone());
            assert_eq!(message.trace_context(), Some(context));
        }
        _ => {}
    }
    check_message(&message, size);
    message
}

/// What an application reads of a message that it has made.
fn check_message(message: &Message, size: usize) {
    assert_eq!(message.payload_shared(), message.payload());
    assert!(message.payload().len() == size || message.is_null());
    assert!(message.key_is_null() || message.key().is_some());
    assert!(!message.key_is_base64() || message.key().is_some_and(|key| key.len() % 4 == 0));
    assert!(message.properties().all(|(name, value)| message.property(name) == Some(value)));
    assert!(message.replication_clusters().all(|cluster| !cluster.is_empty()));
    let _ = (message.ordering_key(), message.schema_id(), message.sequence_id(), message.event_time());
    assert!(message.deliver_at().is_none() || message.deliver_after().is_none());
    assert!(format!("{message:?}").starts_with("Message"));
}

/// Around 1970, around now, or far away.
fn time(choices: &mut Choices<'_>) -> SystemTime {
    let since = Duration::from_millis(1_700_000_000_000 + choices.number() % (1 << 40));
    *choices.pick(&[SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + since, SystemTime::UNIX_EPOCH - since / 2])
}

/// A position in the topic, mostly one that is near its start.
pub(super) fn seek(choices: &mut Choices<'_>) -> SeekTo {
    match choices.below(6) {
        0 => SeekTo::Earliest,
        1 => SeekTo::Latest,
        2 => SeekTo::PublishTime(time(choices)),
        kind => {
            let mut id = MessageId::new(choices.number(), choices.number());
            if kind == 4 {
                let size = 1 + choices.below(200) as u32;
                id = id.with_batch(choices.below(200) as u32 % size, size);
            }
            if kind == 5 {
                let first = MessageId::new(choices.number(), choices.number());
                id = id.with_first_chunk(&first);
            }
            SeekTo::Message { id, inclusive: choices.flag() }
        }
    }
}

/// Is told what happens to endpoints; what it is told can be shown.
#[derive(Debug)]
pub(super) struct Observer;

impl SendObserver for Observer {
    fn on_overdue(&self, _topic: &Arc<str>, waiting: Duration, state: AttachState) {
        assert!(waiting > Duration::ZERO);
        super::told::check_line(&state);
    }

    fn on_end(&self, _topic: &Arc<str>, error: Error) {
        super::told::check_line(&error);
    }
}

impl TopicObserver for Observer {
    fn on_active_change(&self, _topic: &Arc<str>, _is_active: bool) {}

    fn on_end_of_topic(&self, _topic: &Arc<str>) {}

    fn on_stall(&self, _topic: &Arc<str>, reason: IdleReason, quiet_for: Duration) {
        assert!(quiet_for > Duration::ZERO);
        super::told::check_line(&reason);
    }

    fn wants_redeliveries(&self) -> bool {
        true
    }

    fn on_redelivery(
        &self,
        _topic: &Arc<str>,
        nacked: &[crate::id::MessagePosition],
        timed_out: &[crate::id::MessagePosition],
    ) {
        assert!(!nacked.is_empty() || !timed_out.is_empty(), "told of something");
    }
}
