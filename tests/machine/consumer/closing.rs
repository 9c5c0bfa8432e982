//! Close and unsubscribe, from every state.

use super::*;

#[test]
fn close_sends_acknowledgements_first_and_never_unsubscribes() {
    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    harness.deliver((0..9).map(single));
    harness.take();
    harness.ack(id(0));
    let (mut first, mut second) = (harness.close(), harness.close());
    assert_eq!(harness.sent(), ["ACK 1:0", "request CLOSE_CONSUMER"]);
    assert_eq!(harness.take().1.ended.map(|error| error.kind()), Some(ErrorKind::Closed));
    assert!(poll(&mut first).is_none());
    assert_eq!(harness.answer(success()), OpKind::Close);
    assert_eq!((poll(&mut first), poll(&mut second)), (Some(Ok(())), Some(Ok(()))));
    assert!(harness.consumer.is_finished() && harness.consumer.is_closed_at_broker());
    assert_eq!(harness.consumer.poll_deadline(), None);
}

#[test]
fn close_waits_for_what_is_being_confirmed() {
    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    let mut confirmed = harness.confirm(&[id(0)], false);
    let mut closed = harness.close();
    assert_eq!(harness.sent(), ["request ACK 1:0"]);
    harness.answer(success());
    assert_eq!(poll(&mut confirmed), Some(Ok(())));
    assert_eq!(harness.sent(), ["request CLOSE_CONSUMER"]);
    harness.answer(success());
    assert_eq!(poll(&mut closed), Some(Ok(())));
}

#[test]
fn close_while_detached_is_done_unless_something_is_to_be_sent() {
    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    harness.lose_connection();
    assert_eq!(poll(&mut harness.close()), Some(Ok(())));
    assert!(harness.consumer.is_finished());

    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    harness.lose_connection();
    harness.ack(id(0));
    let mut closed = harness.close();
    assert!(poll(&mut closed).is_none());
    harness.attach();
    assert_eq!(harness.sent(), ["ACK 1:0", "request CLOSE_CONSUMER"]);
    harness.lose_connection();
    assert_eq!(poll(&mut closed), Some(Ok(())), "the broker forgets a consumer with its connection");
}

#[test]
fn close_has_a_deadline_in_every_state() {
    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    harness.lose_connection();
    harness.ack(id(0));
    let mut closed = harness.close();
    harness.pass(Duration::from_secs(30));
    assert_eq!(kind(&mut closed), ErrorKind::TimedOut);
    assert!(harness.consumer.is_finished());

    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    let mut closed = harness.close();
    harness.sent();
    harness.pass(Duration::from_secs(30));
    assert_eq!(kind(&mut closed), ErrorKind::TimedOut);
}

#[test]
fn close_while_subscribing_waits_for_the_answer() {
    let mut harness = ConsumerHarness::new(SHARED, |_| {});
    harness.consumer.subscribe_request(harness.now);
    let mut closed = harness.close();
    assert_eq!(kind(&mut harness.subscribed), ErrorKind::Closed);
    assert!(poll(&mut closed).is_none() && !harness.consumer.is_finished());
    harness.consumer.on_attached(&mut harness.deferred);
    assert_eq!(harness.sent(), ["request CLOSE_CONSUMER"], "and no permits for a consumer that goes");
    harness.answer(success());
    assert_eq!(poll(&mut closed), Some(Ok(())));

    let mut harness = ConsumerHarness::new(SHARED, |_| {});
    harness.consumer.subscribe_request(harness.now);
    let mut closed = harness.close();
    harness.detach();
    assert_eq!(poll(&mut closed), Some(Ok(())), "refused: there is nothing to close");
}

#[test]
fn unsubscribe_ends_the_consumer_without_a_close() {
    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    harness.ack(id(0));
    let (to, mut reply) = Reply::pair();
    harness.consumer.unsubscribe(false, to, harness.now, &mut harness.deferred);
    assert_eq!(harness.sent(), ["ACK 1:0", "request UNSUBSCRIBE"]);
    harness.answer(refused());
    assert_eq!(kind(&mut reply), ErrorKind::Server);
    assert!(!harness.consumer.is_finished());

    let (to, mut reply) = Reply::pair();
    harness.consumer.unsubscribe(true, to, harness.now, &mut harness.deferred);
    assert_eq!(harness.sent(), ["request UNSUBSCRIBE"]);
    harness.answer(success());
    assert_eq!(poll(&mut reply), Some(Ok(())));
    assert!(harness.consumer.is_finished() && harness.consumer.is_closed_at_broker());
    assert_eq!(harness.sent(), NONE);
    assert_eq!(poll(&mut harness.close()), Some(Ok(())));
}
