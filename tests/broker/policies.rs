//! Policies of namespaces and topics, and the broker's own clock.

use std::time::Duration;

use pulsar_native::broker::machine::ConnId;
use pulsar_native::broker::{
    AutoTopicCreation, BacklogQuota, BacklogQuotaPolicy, BacklogQuotaType, DelayedDelivery, PolicySet,
    RetentionPolicies,
};
use pulsar_native::pb::command_ack::AckType;
use pulsar_native::pb::command_subscribe::SubType;
use pulsar_native::pb::{self, ServerError};
use pulsar_native::wire::metadata::MetadataFields;
use pulsar_native::wire::{Command, Frame, SendHead};

use crate::support::{BrokerHarness, TOPIC, error_of, id, producer_command, subscribe_command};

const MINUTE: Duration = Duration::from_secs(60);

fn with_namespace(change: impl FnOnce(&mut PolicySet)) -> BrokerHarness {
    let mut harness = BrokerHarness::new();
    assert!(harness.broker.set_namespace_policies("public/default", change));
    harness
}

fn send_error(harness: &mut BrokerHarness, conn: ConnId) -> (ServerError, String) {
    match harness.take(conn).as_slice() {
        [Frame::Other(Command::SendError(error))] => (error.error(), error.message.clone()),
        other => panic!("no SEND_ERROR but {other:?}"),
    }
}

fn delayed(harness: &mut BrokerHarness, conn: ConnId, sequence_id: u64, by: Duration) {
    let metadata = MetadataFields {
        producer_name: "p",
        sequence_id,
        publish_time_ms: harness.now.wall_ms,
        deliver_at_time_ms: Some((harness.now.wall_ms + by.as_millis() as u64) as i64),
        ..Default::default()
    };
    harness.publish_metadata(conn, &SendHead::new(1, sequence_id), &metadata, b"later");
}

fn backlog(harness: &BrokerHarness) -> u64 {
    harness.broker.stats(TOPIC).expect("the topic").subscriptions["s"].msg_backlog
}

#[test]
fn policies_are_for_namespaces_that_exist_and_go_with_their_topic() {
    let mut harness = BrokerHarness::new();
    assert!(!harness.broker.set_namespace_policies("public/nowhere", |_| ()));
    assert!(!harness.broker.set_topic_policies("persistent://public/nowhere/t", |_| ()));
    assert!(!harness.broker.set_topic_policies("a bad://name", |_| ()));
    assert!(harness.broker.create_topic(TOPIC));
    assert!(harness.broker.set_topic_policies(TOPIC, |own| own.max_message_size = Some(7)));
    assert_eq!(harness.broker.effective_policies(TOPIC).max_message_size, Some(7));
    harness.broker.delete_topic(TOPIC);
    assert_eq!(harness.broker.topic_policies(TOPIC), PolicySet::default());
}

#[test]
fn a_delayed_message_comes_when_the_clock_is_moved() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.producer(conn, 1);
    harness.consumer(conn, 1, SubType::Shared, 10);
    delayed(&mut harness, conn, 0, 60 * MINUTE);
    harness.receipts(conn);
    harness.broker.advance(59 * MINUTE);
    assert_eq!(harness.entries(conn), [] as [u64; 0]);
    harness.broker.advance(MINUTE);
    assert_eq!(harness.entries(conn), [0]);
    // The client's clock was not moved: a delay counts from now all the same.
    delayed(&mut harness, conn, 1, MINUTE / 3);
    harness.receipts(conn);
    harness.advance(MINUTE / 6);
    assert_eq!(harness.entries(conn), [] as [u64; 0]);
    harness.advance(MINUTE / 6);
    assert_eq!(harness.entries(conn), [1]);
}

#[test]
fn moving_the_clock_ends_no_connection_by_its_keep_alive() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.broker.advance(100 * MINUTE);
    assert_eq!(harness.take(conn), []);
    harness.assert_open(conn);
    harness.advance(Duration::from_secs(30));
    assert!(matches!(harness.take(conn).as_slice(), [Frame::Other(Command::Ping(_))]));
}

#[test]
fn messages_expire_after_their_time_to_live() {
    let mut harness = with_namespace(|own| own.message_ttl = Some(MINUTE));
    let conn = harness.connect();
    harness.producer(conn, 1);
    harness.consumer(conn, 1, SubType::Exclusive, 1);
    harness.publish(conn, 1, "p", 0, b"old");
    harness.advance(MINUTE / 2);
    harness.publish(conn, 1, "p", 1, b"young");
    harness.take(conn);
    harness.advance(MINUTE / 2);
    assert_eq!(backlog(&harness), 2, "not over its time yet");
    harness.advance(Duration::from_secs(2));
    assert_eq!(backlog(&harness), 1);
    harness.take(conn);
    harness.flow(conn, 1, 10);
    assert_eq!(harness.entries(conn), [1]);
    harness.broker.advance(MINUTE);
    assert_eq!(backlog(&harness), 0, "moving the clock looks at once");
}

#[test]
fn acknowledged_messages_are_kept_as_long_as_retention_says() {
    let mut harness = with_namespace(|own| own.retention = Some(RetentionPolicies::new(10, -1)));
    let conn = harness.connect();
    harness.producer(conn, 1);
    harness.consumer(conn, 1, SubType::Exclusive, 10);
    for sequence_id in 0..3 {
        harness.publish(conn, 1, "p", sequence_id, b"hello");
    }
    harness.take(conn);
    harness.ack(conn, 1, AckType::Cumulative, vec![id(1, 1)]);
    let entries = |harness: &BrokerHarness| harness.broker.stats(TOPIC).expect("the topic").entries;
    harness.broker.advance(9 * MINUTE);
    assert_eq!(entries(&harness), 3);
    harness.broker.advance(2 * MINUTE);
    assert_eq!(entries(&harness), 1, "what is not acknowledged stays");
    assert!(harness.broker.set_topic_policies(TOPIC, |own| own.retention = Some(RetentionPolicies::new(-1, 1))));
    harness.ack(conn, 1, AckType::Cumulative, vec![id(1, 2)]);
    harness.broker.advance(600 * MINUTE);
    assert_eq!(entries(&harness), 1, "within a megabyte");
    assert!(harness.broker.set_topic_policies(TOPIC, |own| own.retention = Some(RetentionPolicies::new(0, 0))));
    harness.broker.advance(MINUTE);
    assert_eq!(entries(&harness), 0);
}

#[test]
fn a_quota_keeps_producers_out_with_the_code_of_its_policy() {
    let cases = [
        (BacklogQuotaPolicy::ProducerRequestHold, ServerError::ProducerBlockedQuotaExceededError),
        (BacklogQuotaPolicy::ProducerException, ServerError::ProducerBlockedQuotaExceededException),
    ];
    for (policy, code) in cases {
        let mut harness = with_namespace(|own| {
            own.backlog_quotas.insert(BacklogQuotaType::DestinationStorage, BacklogQuota::new(100, policy));
        });
        let conn = harness.connect();
        harness.producer(conn, 1);
        harness.publish(conn, 1, "p", 0, &[7; 200]);
        harness.take(conn);
        harness.broker.advance(MINUTE);
        assert_eq!(harness.take(conn), [], "no subscription, no backlog");
        harness.consumer(conn, 1, SubType::Exclusive, 10);
        assert_eq!(harness.entries(conn), [0]);
        harness.broker.advance(MINUTE);
        assert!(matches!(harness.take(conn).as_slice(), [Frame::Other(Command::CloseProducer(_))]), "{policy}");
        let (request_id, producer_id) = (harness.request_id(), 2);
        let answer = harness.ask(conn, producer_command(request_id, producer_id, TOPIC));
        let text = "org.apache.pulsar.broker.service.BrokerServiceException$TopicBacklogQuotaExceededException: \
                    Cannot create producer on topic with backlog quota exceeded";
        assert_eq!(error_of(&answer), (code, text));
        harness.ack_entry(conn, 1, 0);
        harness.producer(conn, 3);
    }
}

#[test]
fn a_quota_by_age_or_size_drops_the_oldest_where_it_says_so() {
    let evicting = BacklogQuotaPolicy::ConsumerBacklogEviction;
    let mut harness = with_namespace(|own| {
        own.backlog_quotas.insert(BacklogQuotaType::MessageAge, BacklogQuota::of_age(100, evicting));
    });
    let conn = harness.connect();
    harness.producer(conn, 1);
    harness.consumer(conn, 1, SubType::Shared, 10);
    harness.publish(conn, 1, "p", 0, b"old");
    harness.broker.advance(MINUTE);
    harness.publish(conn, 1, "p", 1, b"young");
    assert_eq!(backlog(&harness), 2);
    harness.broker.advance(MINUTE);
    assert_eq!(backlog(&harness), 1);
    assert!(harness.broker.set_topic_policies(TOPIC, |own| {
        own.backlog_quotas.insert(BacklogQuotaType::DestinationStorage, BacklogQuota::new(1_000, evicting));
    }));
    for sequence_id in 2..22 {
        harness.publish(conn, 1, "p", sequence_id, &[7; 100]);
    }
    harness.broker.advance(Duration::from_secs(1));
    let stats = harness.broker.stats(TOPIC).expect("the topic");
    assert!((4..=8).contains(&backlog(&harness)), "{stats:?}");
    assert_eq!(stats.publishers, ["p"], "nobody is closed");
}

#[test]
fn deduplication_is_switched_by_topic_and_forgets_what_it_knew() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.producer(conn, 1);
    let twice = |harness: &mut BrokerHarness, sequence_id| {
        harness.publish(conn, 1, "p", sequence_id, b"x");
        harness.publish(conn, 1, "p", sequence_id, b"x");
        let receipts = harness.receipts(conn);
        receipts.iter().map(|receipt| receipt.entry_id as i64).collect::<Vec<_>>()
    };
    assert_eq!(twice(&mut harness, 0), [0, 1]);
    assert!(harness.broker.set_topic_policies(TOPIC, |own| own.deduplication_enabled = Some(true)));
    assert_eq!(twice(&mut harness, 1), [2, -1]);
    harness.publish(conn, 1, "p", 0, b"other bytes");
    assert_eq!(harness.receipts(conn)[0].entry_id as i64, -1);
    harness.assert_clean();
    let (request_id, again) = (harness.request_id(), 2);
    harness.send(conn, pb::CommandCloseProducer { producer_id: 1, request_id, ..Default::default() });
    harness.take(conn);
    assert_eq!(harness.producer(conn, again).last_sequence_id, Some(1));
    assert!(harness.broker.set_namespace_policies("public/default", |own| own.deduplication_enabled = Some(true)));
    assert!(harness.broker.set_topic_policies(TOPIC, |own| own.deduplication_enabled = Some(false)));
    assert!(harness.broker.set_topic_policies(TOPIC, |own| own.deduplication_enabled = None));
    let (request_id, producer_id) = (harness.request_id(), again);
    harness.send(conn, pb::CommandCloseProducer { producer_id, request_id, ..Default::default() });
    harness.take(conn);
    assert_eq!(harness.producer(conn, 3).last_sequence_id, Some(-1), "it was off in between");
}

#[test]
fn messages_above_the_limit_of_their_topic_are_refused() {
    let mut harness = BrokerHarness::new();
    assert!(harness.broker.set_topic_policies(TOPIC, |own| own.max_message_size = Some(100)));
    let conn = harness.connect();
    harness.producer(conn, 1);
    harness.publish(conn, 1, "p", 0, &[7; 200]);
    let refusal = (ServerError::NotAllowedError, "Exceed maximum message size".to_owned());
    assert_eq!(send_error(&mut harness, conn), refusal);
    harness.publish(conn, 1, "p", 1, b"small");
    assert_eq!(harness.receipts(conn).len(), 1);
}

#[test]
fn delays_can_be_limited_and_switched_off() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.producer(conn, 1);
    harness.consumer(conn, 1, SubType::Shared, 10);
    let mut limited = DelayedDelivery::new(true);
    limited.max_delivery_delay_in_millis = 1_000;
    assert!(harness.broker.set_topic_policies(TOPIC, |own| own.delayed_delivery = Some(limited)));
    delayed(&mut harness, conn, 0, MINUTE);
    let text = "Exceeds max allowed delivery delay of 1000 milliseconds".to_owned();
    assert_eq!(send_error(&mut harness, conn), (ServerError::NotAllowedError, text));
    let off = DelayedDelivery::new(false);
    assert!(harness.broker.set_topic_policies(TOPIC, |own| own.delayed_delivery = Some(off)));
    delayed(&mut harness, conn, 1, MINUTE);
    let frames = harness.take(conn);
    assert!(matches!(frames.as_slice(), [Frame::Receipt(_), Frame::Message { .. }]), "{frames:?}");
}

#[test]
fn limits_on_producers_consumers_and_subscriptions_refuse_one_more() {
    let mut harness = with_namespace(|own| {
        own.max_producers_per_topic = Some(1);
        own.max_consumers_per_topic = Some(4);
        own.max_consumers_per_subscription = Some(2);
        own.max_subscriptions_per_topic = Some(2);
    });
    let conn = harness.connect();
    harness.producer(conn, 1);
    let mut another = producer_command(1, 2, TOPIC);
    another.producer_name = Some("another".to_owned());
    let answer = harness.ask(conn, another);
    assert_eq!(error_of(&answer).0, ServerError::ProducerBusy);
    assert_eq!(error_of(&answer).1, format!("Topic '{TOPIC}' reached max producers limit"));
    harness.consumer(conn, 1, SubType::Shared, 0);
    harness.consumer(conn, 2, SubType::Shared, 0);
    let answer = harness.ask(conn, subscribe_command(1, 3, SubType::Shared));
    assert_eq!(error_of(&answer), (ServerError::ConsumerBusy, "Subscription reached max consumers limit"));
    harness.consumer_as(conn, 4, SubType::Shared, 0, |subscribe| subscribe.subscription = "other".to_owned());
    let mut third = subscribe_command(1, 5, SubType::Shared);
    third.subscription = "third".to_owned();
    let answer = harness.ask(conn, third);
    let text = format!("Exceed the maximum number of subscriptions of the topic: {TOPIC}");
    assert_eq!(error_of(&answer), (ServerError::NotAllowedError, text.as_str()));
    harness.consumer_as(conn, 6, SubType::Shared, 0, |subscribe| subscribe.subscription = "other".to_owned());
    let answer = harness.ask(conn, subscribe_command(1, 7, SubType::Shared));
    assert_eq!(error_of(&answer), (ServerError::ConsumerBusy, "Topic reached max consumers limit"));
}

#[test]
fn a_subscription_is_held_at_its_limit_until_half_is_acknowledged() {
    let mut harness = with_namespace(|own| own.max_unacked_messages_per_subscription = Some(4));
    let conn = harness.connect();
    harness.producer(conn, 1);
    harness.consumer(conn, 1, SubType::Shared, 10);
    harness.consumer(conn, 2, SubType::Shared, 10);
    for sequence_id in 0..8 {
        harness.publish(conn, 1, "p", sequence_id, b"x");
    }
    let frames = harness.take(conn);
    let delivered = frames.iter().filter(|frame| matches!(frame, Frame::Message { .. })).count();
    assert_eq!(delivered, 4);
    assert!(harness.broker.stats(TOPIC).expect("the topic").subscriptions["s"].blocked_on_unacked);
    harness.ack(conn, 1, AckType::Individual, vec![id(1, 0)]);
    assert_eq!(harness.entries(conn), [] as [u64; 0]);
    harness.ack(conn, 1, AckType::Individual, vec![id(1, 1), id(1, 2), id(1, 3)]);
    assert_eq!(harness.entries(conn), [4, 5, 6, 7]);
}

#[test]
fn topics_are_created_on_demand_where_the_namespace_says_so() {
    let mut harness = with_namespace(|own| own.auto_topic_creation = Some(AutoTopicCreation::new(false)));
    let conn = harness.connect();
    harness.look_up(conn, TOPIC);
    let answer = harness.ask(conn, subscribe_command(1, 1, SubType::Shared));
    assert_eq!(error_of(&answer).0, ServerError::TopicNotFound);
    assert!(harness.broker.set_namespace_policies("public/default", |own| own.auto_topic_creation = None));
    harness.consumer(conn, 2, SubType::Shared, 0);
    harness.assert_clean();
}
