//! FLOW: when permits are granted, and how they come back.

use pulsar_native::machine::receive_memory::ReceiveBudget;

use super::*;

#[test]
fn half_the_queue_consumed_is_granted_again() {
    let mut harness = ConsumerHarness::attached(EXCLUSIVE, |_| {});
    harness.deliver((0..4).map(single));
    assert!(harness.is_in_inbox());
    assert_eq!(harness.consume().len(), 4);
    assert_eq!(harness.sent(), NONE);
    harness.deliver([single(4)]);
    harness.consume();
    assert_eq!(harness.sent(), ["FLOW 5"]);
}

#[test]
fn a_queue_of_one_is_refilled_by_each_message() {
    let mut harness = ConsumerHarness::new(SHARED, |config| config.receiver_queue_size = 1);
    harness.attach();
    assert_eq!(harness.sent(), ["FLOW 1"]);
    for entry in 0..3 {
        harness.deliver([single(entry)]);
        harness.consume();
        assert_eq!(harness.sent(), ["FLOW 1"]);
    }
}

#[test]
fn without_a_queue_each_waiting_receive_requests_one() {
    let mut harness = ConsumerHarness::new(SHARED, |config| config.receiver_queue_size = 0);
    harness.consumer.request_one();
    harness.attach();
    assert_eq!(harness.sent(), ["FLOW 1"]);
    harness.consumer.request_one();
    assert_eq!(harness.sent(), NONE, "the message that is out is for this one too");
    harness.deliver([single(0)]);
    harness.consume();
    assert_eq!(harness.sent(), NONE);
    harness.consumer.request_one();
    assert_eq!(harness.sent(), ["FLOW 1"]);
    harness.lose_connection();
    harness.attach();
    assert_eq!(harness.sent(), ["FLOW 1"], "the receive still waits");
}

#[test]
fn more_messages_than_permits_are_no_error() {
    let mut harness = ConsumerHarness::attached(EXCLUSIVE, |_| {});
    harness.deliver((0..10).map(|entry| batch(entry, 10)));
    assert_eq!(harness.consumer.queued_messages(), 100);
    harness.consume();
    assert_eq!(harness.sent(), ["FLOW 100"]);
}

#[test]
fn members_acknowledged_before_were_never_charged() {
    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    let part = ReceivedEntry::read(MessageHead { ack_set: vec![0b1_1000_0011].into(), ..head(0) }, raw(Some(8)));
    harness.deliver([part]);
    let (entries, taken) = harness.take();
    assert_eq!(entries[0].permits, 3);
    harness.consumer.return_permits(ReturnedPermits { attach_number: taken.attach_number, count: 3 });
    assert_eq!(harness.sent(), NONE);
    harness.deliver([batch(1, 2)]);
    harness.consume();
    assert_eq!(harness.sent(), ["FLOW 5"]);
}

#[test]
fn damaged_entries_are_acked_with_the_reason_and_their_permits_come_back() {
    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    harness.deliver([damaged(0, Some(4)), single(1), damaged(2, None), ReceivedEntry::read(head(3), Bytes::new())]);
    assert_eq!(harness.consumer.queued_messages(), 1);
    assert_eq!(harness.sent(), ["ACK !2 1:0 1:2 1:3", "FLOW 6"]);
}

#[test]
fn a_batch_found_damaged_when_opened_goes_the_same_way() {
    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    harness.deliver([batch(0, 6)]);
    let (_, taken) = harness.take();
    let error = damaged(0, None).body.expect_err("damaged");
    harness.consumer.reject(1, 0, &error, ReturnedPermits { attach_number: taken.attach_number + 1, count: 6 });
    assert_eq!(harness.sent(), NONE, "an entry of another attach comes again, or came again already");
    harness.consumer.reject(1, 0, &error, ReturnedPermits { attach_number: taken.attach_number, count: 6 });
    assert_eq!(harness.sent(), ["ACK !2 1:0", "FLOW 6"]);
}

#[test]
fn permits_of_an_earlier_attach_are_void() {
    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    harness.deliver((0..10).map(single));
    let (_, old) = harness.take();
    harness.lose_connection();
    harness.attach();
    assert_eq!(harness.sent(), ["FLOW 10"]);
    harness.deliver((0..10).map(single));
    harness.take();
    harness.consumer.return_permits(ReturnedPermits { attach_number: old.attach_number, count: 10 });
    assert_eq!(harness.sent(), NONE);
}

#[test]
fn a_queue_full_beyond_all_permits_drops_and_requests_again() {
    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    harness.deliver((0..300).map(single));
    assert_eq!(harness.consumer.queued_messages(), 256);
    let (entries, _) = harness.take();
    assert_eq!(entries.len(), 256);
    assert_eq!(harness.sent()[0], "REDELIVER all");
}

/// The entries of the harness are of one size: a share of four of them, whatever the queue would take.
#[test]
fn a_share_of_the_memory_bounds_the_permits() {
    let entry_bytes = single(0).raw.len();
    let limit = std::num::NonZeroUsize::new(entry_bytes * 4).expect("some bytes");
    let mut harness = ConsumerHarness::new(EXCLUSIVE, |config| config.receiver_queue_size = 100);
    harness.consumer.set_receive_budget(Some(ReceiveBudget::new(limit)));
    harness.attach();
    assert_eq!(harness.sent(), ["FLOW 1"], "nothing is known of their size");
    harness.deliver([single(0)]);
    assert_eq!(harness.sent(), ["FLOW 2"]);
    harness.deliver([single(1), single(2)]);
    assert_eq!(harness.sent(), NONE, "three are here, and one more is not worth a frame");
    assert_eq!(harness.consume().len(), 3);
    assert_eq!(harness.sent(), ["FLOW 4"]);
    harness.deliver((3..7).map(single));
    assert_eq!(harness.sent(), NONE, "the share is used up");
    let (held, taken) = harness.take();
    assert_eq!((held.len(), taken.permits_step), (4, 2));
    assert_eq!(harness.sent(), ["FLOW 1"], "nothing is queued");
    harness.consumer.return_permits(ReturnedPermits { attach_number: taken.attach_number, count: 2 });
    assert_eq!(harness.sent(), NONE);
    harness.consumer.return_permits(ReturnedPermits { attach_number: taken.attach_number, count: 2 });
    assert_eq!(harness.sent(), ["FLOW 3"]);
    harness.lose_connection();
    harness.attach();
    assert_eq!(harness.sent(), ["FLOW 4"], "what was learned is kept");
}
