//! Acknowledgements that the broker confirms.

use super::*;

#[test]
fn a_confirmed_acknowledgement_waits_for_the_broker() {
    let mut script = Script::attached(SHARED, |_| {});
    let mut done = script.confirm(&[id(0), member(1, 0, 2), member(1, 1, 2), member(2, 0, 2)], false);
    let mut bad = script.confirm(&[id(9)], false);
    assert_eq!(script.sent(), ["request ACK 1:0 1:1 1:2{2}", "request ACK 1:9"]);
    assert!(poll(&mut done).is_none());
    script.answer(Ok(Box::new(Command::AckResponse(pb::CommandAckResponse::default()))));
    assert_eq!(poll(&mut done), Some(Ok(())));
    script.answer(refused());
    assert_eq!(kind(&mut bad), ErrorKind::Server);
}

#[test]
fn a_confirmation_lost_with_its_connection_is_sent_again_until_timeout() {
    let mut script = Script::attached(SHARED, |config| config.operation_timeout = MS(1000));
    let mut done = script.confirm(&[id(0)], false);
    assert_eq!(script.sent(), ["request ACK 1:0"]);
    script.lose_connection();
    script.pass(MS(500));
    script.attach();
    assert_eq!(script.sent(), ["FLOW 10", "request ACK 1:0"]);
    // Closed by the broker on a connection that stays: no answer comes for a consumer that it does not know.
    script.detach();
    script.attach();
    assert_eq!(script.sent(), ["FLOW 10", "request ACK 1:0"]);
    assert!(poll(&mut done).is_none());
    script.pass(MS(500));
    assert_eq!(kind(&mut done), ErrorKind::TimedOut);
    script.answer(success());
}

#[test]
fn a_confirmation_times_out_without_a_connection_too() {
    let mut script = Script::attached(SHARED, |_| {});
    script.lose_connection();
    let mut done = script.confirm(&[id(0)], false);
    script.pass(Duration::from_secs(30));
    assert_eq!(kind(&mut done), ErrorKind::TimedOut);
}

#[test]
fn part_of_a_batch_without_index_acks_is_confirmed_at_once() {
    let mut script = Script::attached(SHARED, |config| config.batch_index_acknowledgment = false);
    assert_eq!(poll(&mut script.confirm(&[member(0, 0, 2)], false)), Some(Ok(())));
    let mut last = script.confirm(&[member(0, 1, 2)], false);
    assert_eq!(script.sent(), ["request ACK 1:0"]);
    script.answer(success());
    assert_eq!(poll(&mut last), Some(Ok(())));
}

#[test]
fn confirmed_cumulative_takes_one_id() {
    let mut script = Script::attached(EXCLUSIVE, |_| {});
    assert_eq!(kind(&mut script.confirm(&[id(0), id(1)], true)), ErrorKind::InvalidArgument);
    let mut done = script.confirm(&[id(4)], true);
    assert_eq!(script.sent(), ["request ACK <=1:4"]);
    script.answer(success());
    assert_eq!(poll(&mut done), Some(Ok(())));
}

#[test]
fn a_refusal_opens_the_batch_again_that_was_finished_by_it() {
    let mut script = Script::attached(SHARED, |_| {});
    script.ack(member(0, 0, 3));
    let mut done = script.confirm(&[member(0, 1, 3), member(0, 2, 3)], false);
    assert_eq!(script.sent(), ["request ACK 1:0"]);
    script.answer(refused());
    assert_eq!(kind(&mut done), ErrorKind::Server);
    script.deliver([batch(0, 3)]);
    let (entries, _) = script.take();
    assert_eq!((entries[0].ack_set.as_slice(), entries[0].permits), (&[0b110][..], 2), "not the member before it");
    script.ack(member(0, 1, 3));
    script.ack(member(0, 2, 3));
    script.pass(MS(100));
    assert_eq!(script.sent(), ["ACK 1:0"]);
}

#[test]
fn a_refusal_leaves_members_of_an_open_batch_acknowledged() {
    let mut script = Script::attached(SHARED, |_| {});
    let mut done = script.confirm(&[member(0, 0, 3)], false);
    assert_eq!(script.sent(), ["request ACK 1:0{6}"]);
    script.answer(refused());
    assert_eq!(kind(&mut done), ErrorKind::Server);
    script.ack(member(0, 1, 3));
    script.pass(MS(100));
    assert_eq!(script.sent(), ["ACK 1:0{4}"], "the next set of the batch tells the broker");
}

#[test]
fn one_id_that_cannot_be_used_leaves_all_unacknowledged() {
    let mut script = Script::attached(SHARED, |_| {});
    let mut done = script.confirm(&[member(0, 0, 2), member(5, 1, 0)], false);
    assert_eq!(kind(&mut done), ErrorKind::InvalidArgument);
    script.deliver([batch(0, 2)]);
    assert_eq!(script.take().0[0].permits, 2);
}

#[test]
fn operations_are_bounded() {
    let mut script = Script::attached(SHARED, |_| {});
    let replies: Vec<_> = (0..1001).map(|entry| script.confirm(&[id(entry)], false)).collect();
    let mut last = replies.into_iter().next_back().expect("the last");
    assert_eq!(kind(&mut last), ErrorKind::QueueFull);
}
