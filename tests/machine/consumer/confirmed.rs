//! Acknowledgements that the broker confirms.

use super::*;

#[test]
fn a_confirmed_acknowledgement_waits_for_the_broker() {
    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    let mut done = harness.confirm(&[id(0), member(1, 0, 2), member(1, 1, 2), member(2, 0, 2)], false);
    let mut bad = harness.confirm(&[id(9)], false);
    assert_eq!(harness.sent(), ["request ACK 1:0 1:1 1:2{2}", "request ACK 1:9"]);
    assert!(poll(&mut done).is_none());
    harness.answer(Ok(Box::new(Command::AckResponse(pb::CommandAckResponse::default()))));
    assert_eq!(poll(&mut done), Some(Ok(())));
    harness.answer(refused());
    assert_eq!(kind(&mut bad), ErrorKind::Server);
}

#[test]
fn a_confirmation_lost_with_its_connection_is_sent_again_until_timeout() {
    let mut harness = ConsumerHarness::attached(SHARED, |config| config.operation_timeout = MS(1000));
    let mut done = harness.confirm(&[id(0)], false);
    assert_eq!(harness.sent(), ["request ACK 1:0"]);
    harness.lose_connection();
    harness.pass(MS(500));
    harness.attach();
    assert_eq!(harness.sent(), ["FLOW 10", "request ACK 1:0"]);
    // Closed by the broker on a connection that stays: no answer comes for a consumer that it does not know.
    harness.detach();
    harness.attach();
    assert_eq!(harness.sent(), ["FLOW 10", "request ACK 1:0"]);
    assert!(poll(&mut done).is_none());
    harness.pass(MS(500));
    assert_eq!(kind(&mut done), ErrorKind::TimedOut);
    harness.answer(success());
}

#[test]
fn a_confirmation_times_out_without_a_connection_too() {
    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    harness.lose_connection();
    let mut done = harness.confirm(&[id(0)], false);
    harness.pass(Duration::from_secs(30));
    assert_eq!(kind(&mut done), ErrorKind::TimedOut);
}

#[test]
fn part_of_a_batch_without_index_acks_is_confirmed_at_once() {
    let mut harness = ConsumerHarness::attached(SHARED, |config| config.batch_index_acknowledgment = false);
    assert_eq!(poll(&mut harness.confirm(&[member(0, 0, 2)], false)), Some(Ok(())));
    let mut last = harness.confirm(&[member(0, 1, 2)], false);
    assert_eq!(harness.sent(), ["request ACK 1:0"]);
    harness.answer(success());
    assert_eq!(poll(&mut last), Some(Ok(())));
}

#[test]
fn confirmed_cumulative_takes_one_id() {
    let mut harness = ConsumerHarness::attached(EXCLUSIVE, |_| {});
    assert_eq!(kind(&mut harness.confirm(&[id(0), id(1)], true)), ErrorKind::InvalidArgument);
    let mut done = harness.confirm(&[id(4)], true);
    assert_eq!(harness.sent(), ["request ACK <=1:4"]);
    harness.answer(success());
    assert_eq!(poll(&mut done), Some(Ok(())));
}

#[test]
fn a_refusal_opens_the_batch_again_that_was_finished_by_it() {
    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    harness.ack(member(0, 0, 3));
    let mut done = harness.confirm(&[member(0, 1, 3), member(0, 2, 3)], false);
    assert_eq!(harness.sent(), ["request ACK 1:0"]);
    harness.answer(refused());
    assert_eq!(kind(&mut done), ErrorKind::Server);
    harness.deliver([batch(0, 3)]);
    let (entries, _) = harness.take();
    assert_eq!((&entries[0].ack_set[..], entries[0].permits), (&[0b110][..], 2), "not the member before it");
    harness.ack(member(0, 1, 3));
    harness.ack(member(0, 2, 3));
    harness.pass(MS(100));
    assert_eq!(harness.sent(), ["ACK 1:0"]);
}

#[test]
fn a_refusal_leaves_members_of_an_open_batch_acknowledged() {
    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    let mut done = harness.confirm(&[member(0, 0, 3)], false);
    assert_eq!(harness.sent(), ["request ACK 1:0{6}"]);
    harness.answer(refused());
    assert_eq!(kind(&mut done), ErrorKind::Server);
    harness.ack(member(0, 1, 3));
    harness.pass(MS(100));
    assert_eq!(harness.sent(), ["ACK 1:0{4}"], "the next set of the batch tells the broker");
}

#[test]
fn one_id_that_cannot_be_used_leaves_all_unacknowledged() {
    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    let mut done = harness.confirm(&[member(0, 0, 2), member(5, 1, 0)], false);
    assert_eq!(kind(&mut done), ErrorKind::InvalidArgument);
    harness.deliver([batch(0, 2)]);
    assert_eq!(harness.take().0[0].permits, 2);
}

#[test]
fn operations_are_bounded() {
    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    let replies: Vec<_> = (0..1001).map(|entry| harness.confirm(&[id(entry)], false)).collect();
    let mut last = replies.into_iter().next_back().expect("the last");
    assert_eq!(kind(&mut last), ErrorKind::QueueFull);
}
