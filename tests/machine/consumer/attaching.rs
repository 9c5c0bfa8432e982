//! Subscribing, and attaching again.

use super::*;

#[test]
fn subscribe_says_what_the_options_say() {
    use pb::command_subscribe::SubType;
    for (kind, wire) in [
        (EXCLUSIVE, SubType::Exclusive),
        (SHARED, SubType::Shared),
        (SubscriptionType::Failover, SubType::Failover),
        (SubscriptionType::KeyShared, SubType::KeyShared),
    ] {
        let mut harness = ConsumerHarness::new(kind, |config| config.properties.push(("k".into(), "v".into())));
        let request = harness.consumer.subscribe_request(harness.now);
        assert_eq!((request.sub_type(), request.consumer_id, request.subscription.as_str()), (wire, 7, "s"));
        assert_eq!(request.topic, "persistent://public/default/t");
        assert_eq!(request.metadata.len(), 1);
        assert_eq!(request.key_shared_meta.is_some(), kind == SubscriptionType::KeyShared);
        assert_eq!((request.consumer_epoch, request.durable, request.start_message_id), (Some(0), Some(true), None));
        assert_eq!(request.schema, None);
    }
    for replicate in [None, Some(true), Some(false)] {
        let mut harness = ConsumerHarness::new(SHARED, |config| config.replicate_subscription_state = replicate);
        assert_eq!(harness.consumer.subscribe_request(harness.now).replicate_subscription_state, replicate);
    }
    let schema = SchemaInfo::new("n", SchemaType::AutoConsume, "").with_property("k", "v");
    let mut with_schema = ConsumerHarness::new(SHARED, |config| config.schema = Some(schema));
    for _ in 0..2 {
        let schema = with_schema.consumer.subscribe_request(with_schema.now).schema.expect("each time");
        assert_eq!((schema.r#type(), schema.properties.len()), (pb::schema::Type::AutoConsume, 1));
    }
    let mut sticky = ConsumerHarness::new(SubscriptionType::KeyShared, |config| {
        config.key_shared_policy = KeySharedPolicy::Sticky(vec![0..=9, 20..=65535]);
    });
    let meta = sticky.consumer.subscribe_request(sticky.now).key_shared_meta.expect("ranges");
    assert_eq!(meta.key_shared_mode(), pb::KeySharedMode::Sticky);
    assert_eq!(meta.hash_ranges[1], pb::IntRange { start: 20, end: 65535 });
}

#[test]
fn the_first_attach_answers_and_permits_follow_it() {
    let mut harness = ConsumerHarness::new(EXCLUSIVE, |_| {});
    assert!(poll(&mut harness.subscribed).is_none());
    harness.attach();
    assert_eq!(poll(&mut harness.subscribed), Some(Ok(())));
    assert_eq!(harness.sent(), ["FLOW 10"]);
    assert_eq!(harness.sent(), NONE);
}

#[test]
fn a_consumer_that_is_not_subscribed_in_time_fails() {
    let mut harness = ConsumerHarness::new(EXCLUSIVE, |config| config.operation_timeout = MS(500));
    harness.consumer.subscribe_request(harness.now);
    harness.pass(MS(499));
    assert!(poll(&mut harness.subscribed).is_none());
    harness.pass(MS(1));
    assert_eq!(kind(&mut harness.subscribed), ErrorKind::TimedOut);
    assert!(harness.consumer.is_finished() && !harness.consumer.is_closed_at_broker());
    assert_eq!(harness.take().1.ended.map(|error| error.kind()), Some(ErrorKind::TimedOut));
}

#[test]
fn a_new_attach_starts_queue_and_permits_anew() {
    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    harness.deliver((0..4).map(single));
    let queue_epoch = harness.queue_epoch();
    harness.lose_connection();
    assert_eq!(harness.consumer.queued_messages(), 4, "until then they may still be taken");
    harness.attach();
    assert_eq!(harness.consumer.queued_messages(), 0);
    assert_eq!(harness.queue_epoch(), queue_epoch + 1);
    assert_eq!(harness.sent(), ["FLOW 10"]);
    harness.deliver((0..4).map(single));
    assert!(harness.is_in_inbox());
    assert_eq!(harness.consume().len(), 4);
}

#[test]
fn nothing_is_written_while_detached() {
    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    harness.detach();
    harness.consumer.redeliver_unacknowledged_messages();
    harness.ack(id(0));
    let _last = {
        let (to, reply) = Reply::pair();
        harness.consumer.last_message_id(to, harness.now, &mut harness.deferred);
        reply
    };
    assert_eq!(harness.sent(), NONE);
    harness.deliver([single(0)]);
    assert_eq!(harness.consumer.queued_messages(), 0, "of the consumer the broker has closed");
}

#[test]
fn an_error_that_ends_it_reaches_every_caller() {
    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    harness.deliver([single(0)]);
    harness.take();
    harness.is_in_inbox();
    let mut confirmed = harness.confirm(&[id(0)], false);
    let error = RequestError::Server(ServerError::new(11, "gone")).into_error("to subscribe");
    harness.consumer.fail(error, &mut harness.deferred);
    assert_eq!(kind(&mut confirmed), ErrorKind::TopicNotFound);
    assert!(harness.consumer.is_finished() && harness.is_in_inbox());
    let ended = harness.take().1.ended.expect("over");
    assert_eq!((ended.kind(), ended.topic()), (ErrorKind::TopicNotFound, Some("persistent://public/default/t")));
    let now = harness.now;
    assert_eq!(harness.consumer.ack(&id(0), || now).expect_err("over").kind(), ErrorKind::TopicNotFound);
    assert_eq!(kind(&mut harness.confirm(&[id(1)], false)), ErrorKind::TopicNotFound);
    assert_eq!(poll(&mut harness.close()), Some(Ok(())));
}
