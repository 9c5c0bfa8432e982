//! Close and unsubscribe, from every state.

use super::*;

#[test]
fn close_sends_acknowledgements_first_and_never_unsubscribes() {
    let mut script = Script::attached(SHARED, |_| {});
    script.deliver((0..9).map(single));
    script.take();
    script.ack(id(0));
    let (mut first, mut second) = (script.close(), script.close());
    assert_eq!(script.sent(), ["ACK 1:0", "request CLOSE_CONSUMER"]);
    assert_eq!(script.take().1.ended.map(|error| error.kind()), Some(ErrorKind::Closed));
    assert!(poll(&mut first).is_none());
    assert_eq!(script.answer(success()), OpKind::Close);
    assert_eq!((poll(&mut first), poll(&mut second)), (Some(Ok(())), Some(Ok(()))));
    assert!(script.consumer.is_finished() && script.consumer.is_closed_at_broker());
    assert_eq!(script.consumer.poll_deadline(), None);
}

#[test]
fn close_waits_for_what_is_being_confirmed() {
    let mut script = Script::attached(SHARED, |_| {});
    let mut confirmed = script.confirm(&[id(0)], false);
    let mut closed = script.close();
    assert_eq!(script.sent(), ["request ACK 1:0"]);
    script.answer(success());
    assert_eq!(poll(&mut confirmed), Some(Ok(())));
    assert_eq!(script.sent(), ["request CLOSE_CONSUMER"]);
    script.answer(success());
    assert_eq!(poll(&mut closed), Some(Ok(())));
}

#[test]
fn close_while_detached_is_done_unless_something_is_to_be_sent() {
    let mut script = Script::attached(SHARED, |_| {});
    script.lose_connection();
    assert_eq!(poll(&mut script.close()), Some(Ok(())));
    assert!(script.consumer.is_finished());

    let mut script = Script::attached(SHARED, |_| {});
    script.lose_connection();
    script.ack(id(0));
    let mut closed = script.close();
    assert!(poll(&mut closed).is_none());
    script.attach();
    assert_eq!(script.sent(), ["ACK 1:0", "request CLOSE_CONSUMER"]);
    script.lose_connection();
    assert_eq!(poll(&mut closed), Some(Ok(())), "the broker forgets a consumer with its connection");
}

#[test]
fn close_has_a_deadline_in_every_state() {
    let mut script = Script::attached(SHARED, |_| {});
    script.lose_connection();
    script.ack(id(0));
    let mut closed = script.close();
    script.pass(Duration::from_secs(30));
    assert_eq!(kind(&mut closed), ErrorKind::TimedOut);
    assert!(script.consumer.is_finished());

    let mut script = Script::attached(SHARED, |_| {});
    let mut closed = script.close();
    script.sent();
    script.pass(Duration::from_secs(30));
    assert_eq!(kind(&mut closed), ErrorKind::TimedOut);
}

#[test]
fn close_while_subscribing_waits_for_the_answer() {
    let mut script = Script::new(SHARED, |_| {});
    script.consumer.subscribe_request();
    let mut closed = script.close();
    assert_eq!(kind(&mut script.subscribed), ErrorKind::Closed);
    assert!(poll(&mut closed).is_none() && !script.consumer.is_finished());
    script.consumer.on_attached(&mut script.deferred);
    assert_eq!(script.sent(), ["request CLOSE_CONSUMER"], "and no permits for a consumer that goes");
    script.answer(success());
    assert_eq!(poll(&mut closed), Some(Ok(())));

    let mut script = Script::new(SHARED, |_| {});
    script.consumer.subscribe_request();
    let mut closed = script.close();
    script.detach();
    assert_eq!(poll(&mut closed), Some(Ok(())), "refused: there is nothing to close");
}

#[test]
fn unsubscribe_ends_the_consumer_without_a_close() {
    let mut script = Script::attached(SHARED, |_| {});
    script.ack(id(0));
    let (to, mut reply) = Reply::pair();
    script.consumer.unsubscribe(false, to, script.now, &mut script.deferred);
    assert_eq!(script.sent(), ["ACK 1:0", "request UNSUBSCRIBE"]);
    script.answer(refused());
    assert_eq!(kind(&mut reply), ErrorKind::Server);
    assert!(!script.consumer.is_finished());

    let (to, mut reply) = Reply::pair();
    script.consumer.unsubscribe(true, to, script.now, &mut script.deferred);
    assert_eq!(script.sent(), ["request UNSUBSCRIBE"]);
    script.answer(success());
    assert_eq!(poll(&mut reply), Some(Ok(())));
    assert!(script.consumer.is_finished() && script.consumer.is_closed_at_broker());
    assert_eq!(script.sent(), NONE);
    assert_eq!(poll(&mut script.close()), Some(Ok(())));
}
