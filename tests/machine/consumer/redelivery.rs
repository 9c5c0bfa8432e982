//! Negative acknowledgements, and asking for everything again.

use pulsar_native::machine::Endpoint;

use super::*;
use crate::Count;

fn nack_delay(delay: Duration) -> impl Fn(&mut ConsumerConfig) {
    move |config| config.negative_ack_redelivery_backoff = RedeliveryBackoff::constant(delay)
}

#[test]
fn a_nacked_entry_is_requested_after_its_delay() {
    let mut harness = ConsumerHarness::attached(SHARED, nack_delay(MS(1000)));
    harness.deliver([single(0), batch(1, 3), single(2)]);
    harness.consume();
    harness.sent();
    for nacked in [member(1, 0, 3), member(1, 2, 3), id(2)] {
        harness.consumer.nack(&nacked, 0, harness.now);
    }
    harness.pass(MS(999));
    assert_eq!(harness.sent(), NONE);
    harness.pass(MS(251));
    assert_eq!(harness.sent(), ["REDELIVER 1:1 1:2"]);
    harness.pass(Duration::from_secs(10));
    assert_eq!(harness.sent(), NONE);
}

#[test]
fn queued_copies_of_what_comes_again_are_dropped_with_their_permits() {
    let mut harness = ConsumerHarness::attached(SHARED, nack_delay(MS(100)));
    harness.deliver([single(0)]);
    harness.consume();
    harness.consumer.nack(&id(0), 0, harness.now);
    harness.deliver([single(0), batch(1, 4)]);
    harness.pass(MS(200));
    assert_eq!(harness.consume(), [(1, 1)]);
    assert_eq!(harness.sent(), ["REDELIVER 1:0", "FLOW 6"]);
}

#[test]
fn an_acknowledgement_ends_a_nack_and_a_member_does_not() {
    let mut harness = ConsumerHarness::attached(SHARED, nack_delay(MS(100)));
    for entry in [0, 1] {
        harness.consumer.nack(&id(entry), 0, harness.now);
    }
    harness.ack(id(0));
    harness.ack(member(1, 0, 2));
    harness.pass(MS(200));
    assert_eq!(harness.sent(), ["ACK 1:0 1:1{2}", "REDELIVER 1:1"]);
}

#[test]
fn a_thousand_ids_at_a_time() {
    let mut harness = ConsumerHarness::attached(SHARED, nack_delay(MS(100)));
    (0..2500).for_each(|entry| harness.consumer.nack(&id(entry), 0, harness.now));
    harness.pass(MS(200));
    let ids: Vec<_> = harness.sent().iter().map(|frame| frame.split(' ').count() - 1).collect();
    assert_eq!(ids, [1000, 1000, 500]);
}

#[test]
fn in_order_a_nack_rewinds_everything() {
    let mut harness = ConsumerHarness::attached(EXCLUSIVE, nack_delay(MS(100)));
    harness.deliver((0..8).map(single));
    harness.consume();
    assert_eq!(harness.sent(), ["FLOW 8"]);
    harness.deliver((8..12).map(single));
    harness.ack_up_to(id(3));
    let queue_epoch = harness.queue_epoch();
    harness.consumer.nack(&id(5), 0, harness.now);
    harness.consumer.nack(&id(7), 0, harness.now);
    harness.pass(MS(125));
    assert_eq!(harness.sent(), ["ACK <=1:3", "REDELIVER all epoch 1"]);
    assert_eq!(harness.queue_epoch(), queue_epoch + 1);
    assert_eq!(harness.consumer.queued_messages(), 0);
    // Sent before the broker heard of it: of no use, and their permits come home with those of the queue.
    harness.deliver([ReceivedEntry::read(MessageHead { consumer_epoch: Some(0), ..head(12) }, raw(None))]);
    assert_eq!(harness.consumer.queued_messages(), 0);
    assert_eq!(harness.sent(), ["FLOW 5"]);
    harness.deliver([ReceivedEntry::read(MessageHead { consumer_epoch: Some(1), ..head(4) }, raw(None)), single(5)]);
    assert_eq!(harness.consume(), [(1, 4), (1, 5)]);
    harness.lose_connection();
    assert_eq!(harness.consumer.subscribe_request(harness.now).consumer_epoch, Some(1));
}

#[test]
fn acknowledgements_go_before_the_request_that_would_bring_them_back() {
    let mut harness =
        ConsumerHarness::attached(SHARED, |config| config.acknowledgment_group_time = Duration::from_secs(10));
    harness.deliver((0..2).map(single));
    harness.consume();
    harness.ack(id(0));
    harness.consumer.redeliver_unacknowledged_messages();
    assert_eq!(harness.sent(), ["ACK 1:0", "REDELIVER all"]);
}

#[test]
fn on_shared_everything_comes_again_without_an_epoch() {
    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    harness.deliver((0..6).map(single));
    harness.consumer.redeliver_unacknowledged_messages();
    assert_eq!(harness.sent(), ["REDELIVER all", "FLOW 6"]);
    assert_eq!(harness.consumer.queued_messages(), 0);
}

#[test]
fn a_new_attach_delivers_again_so_nothing_nacked_is_requested_twice() {
    let mut harness = ConsumerHarness::attached(SHARED, nack_delay(MS(100)));
    harness.consumer.nack(&id(0), 0, harness.now);
    harness.lose_connection();
    harness.consumer.nack(&id(1), 0, harness.now);
    harness.attach();
    harness.pass(MS(1000));
    assert_eq!(harness.sent(), ["FLOW 10"]);
}

#[test]
fn a_message_that_was_redelivered_waits_longer_and_a_bare_id_does_not() {
    let mut harness = ConsumerHarness::attached(SHARED, |config| {
        config.negative_ack_redelivery_backoff = RedeliveryBackoff::new(MS(1000), MS(8000));
    });
    for (entry, redeliveries) in [(0, 0), (1, 2), (2, 100)] {
        harness.consumer.nack(&id(entry), redeliveries, harness.now);
    }
    harness.pass(MS(1250));
    assert_eq!(harness.sent(), ["REDELIVER 1:0"]);
    harness.pass(MS(2500));
    assert_eq!(harness.sent(), NONE);
    harness.pass(MS(500));
    assert_eq!(harness.sent(), ["REDELIVER 1:1"]);
    harness.pass(MS(4000));
    assert_eq!(harness.sent(), ["REDELIVER 1:2"]);
}

#[test]
fn what_is_given_and_not_acknowledged_in_time_is_requested() {
    let mut harness = ConsumerHarness::attached(SHARED, |config| config.ack_timeout = Some(MS(1000)));
    harness.deliver([single(0), batch(1, 3), single(2), single(3)]);
    harness.consume();
    harness.sent();
    for entry in [0, 1, 2] {
        harness.consumer.on_given(1, entry, 0, harness.now);
    }
    harness.pass(MS(500));
    harness.ack(id(0));
    harness.ack(member(1, 0, 3));
    harness.consumer.nack(&id(2), 0, harness.now);
    harness.pass(MS(750));
    assert_eq!(harness.sent(), ["ACK 1:0 1:1{6}", "REDELIVER 1:1"]);
    assert_eq!(harness.consumer.stats().acknowledgement_timeouts, 1);
    harness.pass(Duration::from_secs(60));
    assert_eq!(harness.sent(), ["REDELIVER 1:2"]);
}

#[test]
fn the_backoff_is_added_to_the_acknowledgement_timeout() {
    let mut harness = ConsumerHarness::attached(SHARED, |config| {
        config.ack_timeout = Some(MS(1000));
        config.ack_timeout_redelivery_backoff = Some(RedeliveryBackoff::new(MS(1000), MS(60_000)));
    });
    harness.consumer.on_given(1, 0, 1, harness.now);
    harness.pass(MS(2999));
    assert_eq!(harness.sent(), NONE);
    harness.pass(MS(251));
    assert_eq!(harness.sent(), ["REDELIVER 1:0"]);
}

#[test]
fn in_order_a_timeout_rewinds_all_and_a_cumulative_ack_ends_it() {
    let mut harness = ConsumerHarness::attached(EXCLUSIVE, |config| config.ack_timeout = Some(MS(1000)));
    harness.deliver((0..4).map(single));
    harness.consume();
    harness.sent();
    (0..2).for_each(|entry| harness.consumer.on_given(1, entry, 0, harness.now));
    harness.ack_up_to(id(1));
    harness.pass(MS(2000));
    assert_eq!(harness.sent(), ["ACK <=1:1"]);
    (2..4).for_each(|entry| harness.consumer.on_given(1, entry, 0, harness.now));
    harness.pass(MS(2000));
    assert_eq!(harness.sent(), ["REDELIVER all epoch 1"]);
}

/// Each deadline is compared with the time until which the owner sleeps, also behind one that it was left asleep for.
#[test]
fn a_second_deadline_wakes_an_owner_that_would_sleep_beyond_it() {
    type Input = fn(&mut Consumer, Now);
    let inputs: [Input; 2] = [
        |consumer, now| consumer.ack(&id(1), || now).expect("the acknowledgement is taken"),
        |consumer, now| consumer.nack_after(&id(1), Duration::from_secs(1), now),
    ];
    for (index, input) in inputs.into_iter().enumerate() {
        let mut harness = ConsumerHarness::attached(SHARED, |_| {});
        harness.deliver([single(0), single(1)]);
        harness.consume();
        harness.sent();
        harness.consumer.take_dirty();
        let (owner, now) = (ReadyList::new(), harness.now);
        let endpoint = Endpoint::new(EndpointId::Consumer(ConsumerId(1)), harness.consumer, owner.clone());
        let count = Arc::new(Count::default());
        let mut ids = Vec::new();
        owner.take(&mut ids, Some(&Waker::from(count.clone())));
        owner.sleeps_until(now.at + Duration::from_secs(30));
        endpoint.with(|consumer| consumer.nack_after(&id(0), Duration::from_secs(60), now));
        assert_eq!(count.0.load(Ordering::Relaxed), 0, "input {index}: it wakes before that");
        endpoint.with(|consumer| input(consumer, now));
        assert_eq!(count.0.load(Ordering::Relaxed), 1, "input {index}");
        owner.take(&mut ids, None);
        assert_eq!(ids.len(), 1, "input {index}: once on the list");
    }
}
