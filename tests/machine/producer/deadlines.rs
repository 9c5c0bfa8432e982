//! Deadlines in every state, and the queue for room.

use pulsar_native::machine::{Dirty, EndpointMachine};

use super::*;

#[test]
fn only_what_is_overdue_fails_while_attached() {
    let mut harness = ProducerHarness::attached(unbatched());
    let old = harness.push("a");
    harness.transmit();
    harness.pass(20 * SECOND);
    let young = harness.push("b");
    harness.transmit();
    harness.pass(10 * SECOND);
    assert_eq!(failure(&old), (ErrorKind::TimedOut, true));
    assert!(is_pending(&young) && harness.producer.is_attached());
    harness.confirm(0);
    assert_eq!(harness.producer.stats().stale_receipts, 1);
    harness.confirm(1);
    assert!(!is_pending(&young));
    harness.assert_empty();
}

#[test]
fn deadlines_hold_while_detached_and_say_whether_bytes_went_out() {
    let mut harness = ProducerHarness::attached(ProducerConfig::default());
    let sent = harness.push("a");
    harness.transmit();
    harness.detach();
    let never_sent = harness.push("b");
    harness.pass(SECOND);
    let later = harness.push("c");
    harness.pass(29 * SECOND);
    assert_eq!(failure(&sent), (ErrorKind::TimedOut, true));
    assert_eq!(failure(&never_sent), (ErrorKind::TimedOut, false));
    assert!(is_pending(&later), "its time is not up: it did not join a batch that old");
    harness.pass(SECOND);
    assert_eq!(failure(&later), (ErrorKind::TimedOut, false));
    harness.assert_empty();
    harness.attach(-1);
    assert!(harness.transmit().is_empty());
}

#[test]
fn deadlines_hold_before_the_first_attach() {
    let mut harness = ProducerHarness::new(config(|config| config.send_timeout = 2 * SECOND));
    let send = harness.push("a");
    harness.pass(2 * SECOND);
    assert_eq!(failure(&send), (ErrorKind::TimedOut, false));
    harness.attach(-1);
    assert!(harness.transmit().is_empty());
}

/// While one that was told waits, nothing is due for those behind it; then their time counts, and the owner has to know.
#[test]
fn the_next_overdue_send_is_known_once_those_that_were_told_are_settled() {
    let mut harness = ProducerHarness::attached(config(|config| {
        (config.batching, config.send_timeout, config.stall_timeout) = (false, Duration::ZERO, 5 * SECOND);
    }));
    let _told = harness.push("a");
    harness.transmit();
    harness.pass(5 * SECOND);
    harness.pass(SECOND);
    let _next = harness.push("b");
    harness.transmit();
    let due = harness.now.at + 5 * SECOND;
    assert_eq!(harness.producer.poll_deadline(), None, "the oldest was told of");
    harness.producer.take_dirty();
    harness.confirm(0);
    assert_eq!(harness.producer.take_dirty(), Dirty::Now, "the owner looks again");
    assert_eq!(harness.producer.poll_deadline().map(|deadline| deadline.at), Some(due));
    harness.pass(5 * SECOND);
    assert_eq!(harness.producer.poll_deadline(), None, "told of");
}

#[test]
fn without_a_send_timeout_nothing_is_overdue() {
    let mut harness = ProducerHarness::attached(config(|config| config.send_timeout = Duration::ZERO));
    let send = harness.push("a");
    harness.transmit();
    harness.detach();
    harness.pass(100_000 * SECOND);
    harness.attach(-1);
    assert_eq!((is_pending(&send), ids(&harness.transmit())), (true, vec![0]));
}

#[test]
fn what_times_out_while_it_is_sealed_is_gone() {
    let mut harness = ProducerHarness::attached(ProducerConfig::default());
    let send = harness.push(vec![b'a'; 3000]);
    let job = harness.producer.take_job(harness.now).expect("a batch");
    harness.pass(30 * SECOND);
    assert_eq!(failure(&send), (ErrorKind::TimedOut, false));
    harness.put(job);
    assert!(harness.transmit().is_empty());
    harness.assert_empty();
}

#[test]
fn a_connection_that_answers_nothing_is_to_be_replaced() {
    for answers in [false, true] {
        let mut harness = ProducerHarness::attached(unbatched());
        for _ in 0..2 {
            let first = harness.producer.stats().accepted_messages;
            for _ in 0..40 {
                let _ = harness.push("a");
            }
            harness.transmit();
            harness.pass(30 * SECOND);
            if answers {
                // Too late, and still a sign of life.
                harness.confirm(first);
            }
        }
        assert_eq!(harness.producer.take_wants_reconnect(), !answers);
        assert!(!harness.producer.take_wants_reconnect(), "said once");
    }
}

#[test]
fn waiters_get_capacity_in_order() {
    let mut harness = ProducerHarness::attached(room_for(1));
    let _ = harness.push("0");
    let (mut first, mut second) = (Waiter::new("1"), Waiter::new("2"));
    assert!(first.poll(&mut harness).is_pending() && second.poll(&mut harness).is_pending());
    harness.transmit();
    harness.confirm(0);
    assert_eq!((first.woken(), second.woken()), (1, 0));
    let now = harness.now;
    assert!(matches!(harness.producer.push("newcomer".into(), None, || now), Err(PushError::Full(..))));
    assert!(second.poll(&mut harness).is_pending());
    assert!(first.poll(&mut harness).is_ready());
    harness.transmit();
    harness.confirm(1);
    assert!(second.woken() == 1 && second.poll(&mut harness).is_ready());
    assert_eq!(harness.transmit()[0].payloads, ["2"]);
}

#[test]
fn one_receipt_can_make_room_for_many() {
    let mut harness = ProducerHarness::attached(config(|config| config.max_pending_messages = 3));
    let _ = (harness.push("a"), harness.push("b"), harness.push("c"));
    let mut waiters = [Waiter::new("1"), Waiter::new("2"), Waiter::new("3"), Waiter::new("4")];
    assert!(waiters.iter_mut().all(|waiter| waiter.poll(&mut harness).is_pending()));
    harness.transmit();
    harness.confirm(0);
    let mut served = 0;
    for waiter in &mut waiters {
        if waiter.woken() == 1 && waiter.poll(&mut harness).is_ready() {
            served += 1;
        }
    }
    assert_eq!((served, waiters[3].woken()), (3, 0));
}

#[test]
fn a_waiter_that_goes_away_passes_its_turn_on() {
    let mut harness = ProducerHarness::attached(room_for(1));
    let _ = harness.push("0");
    let mut waiters = [Waiter::new("1"), Waiter::new("2"), Waiter::new("3")];
    assert!(waiters.iter_mut().all(|waiter| waiter.poll(&mut harness).is_pending()));
    waiters[1].give_up(&mut harness);
    harness.transmit();
    harness.confirm(0);
    assert_eq!(waiters[0].woken(), 1);
    waiters[0].give_up(&mut harness);
    assert_eq!((waiters[1].woken(), waiters[2].woken()), (0, 1));
    assert!(waiters[2].poll(&mut harness).is_ready());
}

/// The first in the queue is woken, is not polled before its deadline, and so leaves without a word.
#[test]
fn a_waiter_that_times_out_unpolled_passes_its_turn_on() {
    let mut harness = ProducerHarness::attached(room_for(1));
    let _ = harness.push("0");
    harness.transmit();
    let (mut first, mut second) = (Waiter::new("1"), Waiter::new("2"));
    harness.pass(10 * SECOND);
    assert!(first.poll(&mut harness).is_pending());
    harness.pass(SECOND);
    assert!(second.poll(&mut harness).is_pending());
    harness.confirm(0);
    assert_eq!((first.woken(), second.woken()), (1, 0));
    harness.pass(29 * SECOND);
    assert_eq!(second.woken(), 1, "the capacity is offered to the next one");
    assert!(second.poll(&mut harness).is_ready());
    assert!(matches!(first.poll(&mut harness), Poll::Ready(Err(_))));
}

#[test]
fn the_deadline_counts_from_the_call_through_the_wait_and_the_send() {
    let mut harness = ProducerHarness::attached(room_for(1));
    let _ = harness.push("0");
    harness.transmit();
    let (mut served, mut overdue) = (Waiter::new("1"), Waiter::new("2"));
    assert!(served.poll(&mut harness).is_pending() && overdue.poll(&mut harness).is_pending());
    harness.pass(20 * SECOND);
    harness.confirm(0);
    let Poll::Ready(Ok(send)) = served.poll(&mut harness) else { panic!("there is room") };
    harness.transmit();
    harness.pass(10 * SECOND);
    assert_eq!(failure(&send), (ErrorKind::TimedOut, true));
    assert_eq!(overdue.woken(), 1);
    let Poll::Ready(Err(error)) = overdue.poll(&mut harness) else { panic!("its time is over") };
    assert_eq!((error.error().kind(), error.may_be_stored()), (ErrorKind::TimedOut, false));
    assert!(overdue.message.is_some(), "the message is still the caller's");
}

#[test]
fn a_message_that_waited_does_not_shorten_the_time_of_others() {
    let mut harness = ProducerHarness::attached(config(|config| config.max_pending_messages = 2));
    let _ = (harness.push("a"), harness.push("b"));
    harness.transmit();
    let mut waiter = Waiter::new("waited");
    assert!(waiter.poll(&mut harness).is_pending());
    harness.pass(20 * SECOND);
    harness.confirm(0);
    let Poll::Ready(Ok(waited)) = waiter.poll(&mut harness) else { panic!("there is room") };
    let fresh = harness.push("fresh");
    assert_eq!(sizes(&harness.transmit()), [1, 1]);
    harness.pass(10 * SECOND);
    assert_eq!(failure(&waited), (ErrorKind::TimedOut, true));
    assert!(is_pending(&fresh));
}

#[test]
fn bytes_are_bounded_and_one_larger_message_passes_alone() {
    let mut harness = ProducerHarness::attached(config(|config| {
        config.max_pending_bytes = 1000;
        config.batching = false;
    }));
    let _ = harness.push(vec![0; 5000]);
    let now = harness.now;
    assert!(matches!(harness.producer.push(Message::new("x"), None, || now), Err(PushError::Full(..))));
    harness.transmit();
    harness.confirm(0);
    let _ = (harness.push(vec![0; 600]), harness.push(vec![0; 400]));
    assert!(matches!(harness.producer.push(Message::new("x"), None, || now), Err(PushError::Full(..))));
}
