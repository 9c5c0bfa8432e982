//! Acknowledgements that wait for the broker's word.

use super::*;

#[test]
fn a_confirmed_acknowledgement_waits_for_the_brokers_word() {
    let mut script = Script::attached(SHARED, |_| {});
    let mut done = script.confirm(&[id(0), member(1, 0, 2), member(1, 1, 2), member(2, 0, 2)], false);
    let mut bad = script.confirm(&[id(9)], false);
    assert_eq!(script.sent(), ["ask ACK 1:0 1:1 1:2{2}", "ask ACK 1:9"]);
    assert!(poll(&mut done).is_none());
    script.answer(Ok(Box::new(Command::AckResponse(pb::CommandAckResponse::default()))));
    assert_eq!(poll(&mut done), Some(Ok(())));
    script.answer(refused());
    assert_eq!(kind(&mut bad), ErrorKind::Server);
}

#[test]
fn a_confirmation_lost_with_its_link_is_asked_again_until_its_deadline() {
    let mut script = Script::attached(SHARED, |config| config.operation_timeout = MS(1000));
    let mut done = script.confirm(&[id(0)], false);
    assert_eq!(script.sent(), ["ask ACK 1:0"]);
    script.lose_link();
    script.pass(MS(500));
    script.attach();
    assert_eq!(script.sent(), ["FLOW 10", "ask ACK 1:0"]);
    // Closed by the broker on a sound link: no answer comes for a consumer it does not know.
    script.detach();
    script.attach();
    assert_eq!(script.sent(), ["FLOW 10", "ask ACK 1:0"]);
    assert!(poll(&mut done).is_none());
    script.pass(MS(500));
    assert_eq!(kind(&mut done), ErrorKind::TimedOut);
    script.answer(success());
}

#[test]
fn a_confirmation_times_out_without_a_connection_too() {
    let mut script = Script::attached(SHARED, |_| {});
    script.lose_link();
    let mut done = script.confirm(&[id(0)], false);
    script.pass(Duration::from_secs(30));
    assert_eq!(kind(&mut done), ErrorKind::TimedOut);
}

#[test]
fn part_of_a_batch_without_index_acks_is_confirmed_at_once() {
    let mut script = Script::attached(SHARED, |config| config.batch_index_acknowledgment = false);
    assert_eq!(poll(&mut script.confirm(&[member(0, 0, 2)], false)), Some(Ok(())));
    let mut last = script.confirm(&[member(0, 1, 2)], false);
    assert_eq!(script.sent(), ["ask ACK 1:0"]);
    script.answer(success());
    assert_eq!(poll(&mut last), Some(Ok(())));
}

#[test]
fn confirmed_cumulative_takes_one_id() {
    let mut script = Script::attached(EXCLUSIVE, |_| {});
    assert_eq!(kind(&mut script.confirm(&[id(0), id(1)], true)), ErrorKind::InvalidArgument);
    let mut done = script.confirm(&[id(4)], true);
    assert_eq!(script.sent(), ["ask ACK <=1:4"]);
    script.answer(success());
    assert_eq!(poll(&mut done), Some(Ok(())));
}

#[test]
fn operations_are_bounded() {
    let mut script = Script::attached(SHARED, |_| {});
    let replies: Vec<_> = (0..1001).map(|entry| script.confirm(&[id(entry)], false)).collect();
    let mut last = replies.into_iter().next_back().expect("the last");
    assert_eq!(kind(&mut last), ErrorKind::QueueFull);
}
