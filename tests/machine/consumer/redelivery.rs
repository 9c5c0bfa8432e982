//! Negative acknowledgements, and asking for everything again.

use super::*;

#[test]
fn a_nacked_entry_is_requested_after_its_delay() {
    let mut script = Script::attached(SHARED, |config| config.negative_ack_redelivery_delay = MS(1000));
    script.deliver([single(0), batch(1, 3), single(2)]);
    script.consume();
    script.sent();
    for nacked in [member(1, 0, 3), member(1, 2, 3), id(2)] {
        script.consumer.nack(&nacked, script.now);
    }
    script.pass(MS(999));
    assert_eq!(script.sent(), NONE);
    script.pass(MS(251));
    assert_eq!(script.sent(), ["REDELIVER 1:1 1:2"]);
    script.pass(Duration::from_secs(10));
    assert_eq!(script.sent(), NONE);
}

#[test]
fn queued_copies_of_what_comes_again_are_dropped_with_their_permits() {
    let mut script = Script::attached(SHARED, |config| config.negative_ack_redelivery_delay = MS(100));
    script.deliver([single(0)]);
    script.consume();
    script.consumer.nack(&id(0), script.now);
    script.deliver([single(0), batch(1, 4)]);
    script.pass(MS(200));
    assert_eq!(script.consume(), [(1, 1)]);
    assert_eq!(script.sent(), ["REDELIVER 1:0", "FLOW 6"]);
}

#[test]
fn an_acknowledgement_ends_a_nack_and_a_member_does_not() {
    let mut script = Script::attached(SHARED, |config| config.negative_ack_redelivery_delay = MS(100));
    for entry in [0, 1] {
        script.consumer.nack(&id(entry), script.now);
    }
    script.ack(id(0));
    script.ack(member(1, 0, 2));
    script.pass(MS(200));
    assert_eq!(script.sent(), ["ACK 1:0 1:1{2}", "REDELIVER 1:1"]);
}

#[test]
fn a_thousand_ids_at_a_time() {
    let mut script = Script::attached(SHARED, |config| config.negative_ack_redelivery_delay = MS(100));
    (0..2500).for_each(|entry| script.consumer.nack(&id(entry), script.now));
    script.pass(MS(200));
    let ids: Vec<_> = script.sent().iter().map(|frame| frame.split(' ').count() - 1).collect();
    assert_eq!(ids, [1000, 1000, 500]);
}

#[test]
fn too_many_nacks_become_one_request_for_everything() {
    let mut script = Script::attached(SHARED, |_| {});
    (0..100_001).for_each(|entry| script.consumer.nack(&id(entry), script.now));
    assert_eq!(script.sent(), ["REDELIVER all"]);
    script.pass(Duration::from_secs(120));
    assert_eq!(script.sent(), NONE);
}

#[test]
fn in_order_a_nack_rewinds_everything() {
    let mut script = Script::attached(EXCLUSIVE, |config| config.negative_ack_redelivery_delay = MS(100));
    script.deliver((0..8).map(single));
    script.consume();
    assert_eq!(script.sent(), ["FLOW 8"]);
    script.deliver((8..12).map(single));
    script.ack_up_to(id(3));
    let queue_epoch = script.queue_epoch();
    script.consumer.nack(&id(5), script.now);
    script.consumer.nack(&id(7), script.now);
    script.pass(MS(125));
    assert_eq!(script.sent(), ["ACK <=1:3", "REDELIVER all epoch 1"]);
    assert_eq!(script.queue_epoch(), queue_epoch + 1);
    assert_eq!(script.consumer.queued_messages(), 0);
    // Sent before the broker heard of it: of no use, and their permits come home with those of the queue.
    script.deliver([ReceivedEntry::read(MessageHead { consumer_epoch: Some(0), ..head(12) }, raw(None))]);
    assert_eq!(script.consumer.queued_messages(), 0);
    assert_eq!(script.sent(), ["FLOW 5"]);
    script.deliver([ReceivedEntry::read(MessageHead { consumer_epoch: Some(1), ..head(4) }, raw(None)), single(5)]);
    assert_eq!(script.consume(), [(1, 4), (1, 5)]);
    script.lose_connection();
    assert_eq!(script.consumer.subscribe_request().consumer_epoch, Some(1));
}

#[test]
fn acknowledgements_go_before_the_request_that_would_bring_them_back() {
    let mut script = Script::attached(SHARED, |config| config.acknowledgment_group_time = Duration::from_secs(10));
    script.deliver((0..2).map(single));
    script.consume();
    script.ack(id(0));
    script.consumer.redeliver_unacknowledged_messages();
    assert_eq!(script.sent(), ["ACK 1:0", "REDELIVER all"]);
}

#[test]
fn on_shared_everything_comes_again_without_an_epoch() {
    let mut script = Script::attached(SHARED, |_| {});
    script.deliver((0..6).map(single));
    script.consumer.redeliver_unacknowledged_messages();
    assert_eq!(script.sent(), ["REDELIVER all", "FLOW 6"]);
    assert_eq!(script.consumer.queued_messages(), 0);
}

#[test]
fn a_new_attach_delivers_again_so_nothing_nacked_is_requested_twice() {
    let mut script = Script::attached(SHARED, |config| config.negative_ack_redelivery_delay = MS(100));
    script.consumer.nack(&id(0), script.now);
    script.lose_connection();
    script.consumer.nack(&id(1), script.now);
    script.attach();
    script.pass(MS(1000));
    assert_eq!(script.sent(), ["FLOW 10"]);
}
