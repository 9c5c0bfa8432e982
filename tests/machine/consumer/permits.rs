//! FLOW: when permits are granted, and how they come back.

use super::*;

#[test]
fn half_the_queue_consumed_is_granted_again() {
    let mut script = Script::attached(EXCLUSIVE, |_| {});
    script.deliver((0..4).map(single));
    assert!(script.is_in_inbox());
    assert_eq!(script.consume().len(), 4);
    assert_eq!(script.sent(), NONE);
    script.deliver([single(4)]);
    script.consume();
    assert_eq!(script.sent(), ["FLOW 5"]);
}

#[test]
fn a_queue_of_one_is_refilled_by_each_message() {
    let mut script = Script::new(SHARED, |config| config.receiver_queue_size = 1);
    script.attach();
    assert_eq!(script.sent(), ["FLOW 1"]);
    for entry in 0..3 {
        script.deliver([single(entry)]);
        script.consume();
        assert_eq!(script.sent(), ["FLOW 1"]);
    }
}

#[test]
fn without_a_queue_each_waiting_receive_requests_one() {
    let mut script = Script::new(SHARED, |config| config.receiver_queue_size = 0);
    script.consumer.request_one();
    script.attach();
    assert_eq!(script.sent(), ["FLOW 1"]);
    script.consumer.request_one();
    assert_eq!(script.sent(), NONE, "the message that is out is for this one too");
    script.deliver([single(0)]);
    script.consume();
    assert_eq!(script.sent(), NONE);
    script.consumer.request_one();
    assert_eq!(script.sent(), ["FLOW 1"]);
    script.lose_connection();
    script.attach();
    assert_eq!(script.sent(), ["FLOW 1"], "the receive still waits");
}

#[test]
fn more_messages_than_permits_are_no_error() {
    let mut script = Script::attached(EXCLUSIVE, |_| {});
    script.deliver((0..10).map(|entry| batch(entry, 10)));
    assert_eq!(script.consumer.queued_messages(), 100);
    script.consume();
    assert_eq!(script.sent(), ["FLOW 100"]);
}

#[test]
fn members_acknowledged_before_were_never_charged() {
    let mut script = Script::attached(SHARED, |_| {});
    let part = ReceivedEntry::read(MessageHead { ack_set: vec![0b1_1000_0011], ..head(0) }, raw(Some(8)));
    script.deliver([part]);
    let (entries, taken) = script.take();
    assert_eq!(entries[0].permits, 3);
    script.consumer.return_permits(ReturnedPermits { attach_number: taken.attach_number, count: 3 });
    assert_eq!(script.sent(), NONE);
    script.deliver([batch(1, 2)]);
    script.consume();
    assert_eq!(script.sent(), ["FLOW 5"]);
}

#[test]
fn damaged_entries_are_acked_with_the_reason_and_their_permits_come_back() {
    let mut script = Script::attached(SHARED, |_| {});
    script.deliver([damaged(0, Some(4)), single(1), damaged(2, None), ReceivedEntry::read(head(3), Bytes::new())]);
    assert_eq!(script.consumer.queued_messages(), 1);
    assert_eq!(script.sent(), ["ACK !2 1:0 1:2 1:3", "FLOW 6"]);
}

#[test]
fn a_batch_found_damaged_when_opened_goes_the_same_way() {
    let mut script = Script::attached(SHARED, |_| {});
    script.deliver([batch(0, 6)]);
    let (_, taken) = script.take();
    let error = damaged(0, None).body.expect_err("damaged");
    script.consumer.reject(1, 0, &error, ReturnedPermits { attach_number: taken.attach_number + 1, count: 6 });
    assert_eq!(script.sent(), NONE, "an entry of another attach comes again, or came again already");
    script.consumer.reject(1, 0, &error, ReturnedPermits { attach_number: taken.attach_number, count: 6 });
    assert_eq!(script.sent(), ["ACK !2 1:0", "FLOW 6"]);
}

#[test]
fn permits_of_an_earlier_attach_are_void() {
    let mut script = Script::attached(SHARED, |_| {});
    script.deliver((0..10).map(single));
    let (_, old) = script.take();
    script.lose_connection();
    script.attach();
    assert_eq!(script.sent(), ["FLOW 10"]);
    script.deliver((0..10).map(single));
    script.take();
    script.consumer.return_permits(ReturnedPermits { attach_number: old.attach_number, count: 10 });
    assert_eq!(script.sent(), NONE);
}

#[test]
fn a_queue_full_beyond_all_permits_drops_and_requests_again() {
    let mut script = Script::attached(SHARED, |_| {});
    script.deliver((0..300).map(single));
    assert_eq!(script.consumer.queued_messages(), 256);
    let (entries, _) = script.take();
    assert_eq!(entries.len(), 256);
    assert_eq!(script.sent()[0], "REDELIVER all");
}
