//! Deadlines in every state, and the queue for room.

use super::*;

#[test]
fn only_what_is_overdue_fails_while_attached() {
    let mut rig = Rig::attached(unbatched());
    let old = rig.push("a");
    rig.transmit();
    rig.pass(20 * SECOND);
    let young = rig.push("b");
    rig.transmit();
    rig.pass(10 * SECOND);
    assert_eq!(failure(&old), (ErrorKind::TimedOut, true));
    assert!(is_pending(&young) && rig.producer.is_attached());
    rig.confirm(0);
    assert_eq!(rig.producer.stats().stale_receipts, 1);
    rig.confirm(1);
    assert!(!is_pending(&young));
    rig.assert_empty();
}

#[test]
fn deadlines_hold_while_detached_and_say_whether_bytes_went_out() {
    let mut rig = Rig::attached(ProducerConfig::default());
    let sent = rig.push("a");
    rig.transmit();
    rig.detach();
    let never_sent = rig.push("b");
    rig.pass(SECOND);
    let later = rig.push("c");
    rig.pass(29 * SECOND);
    assert_eq!(failure(&sent), (ErrorKind::TimedOut, true));
    assert_eq!(failure(&never_sent), (ErrorKind::TimedOut, false));
    assert!(is_pending(&later), "its time is not up: it did not join a batch that old");
    rig.pass(SECOND);
    assert_eq!(failure(&later), (ErrorKind::TimedOut, false));
    rig.assert_empty();
    rig.attach(-1);
    assert!(rig.transmit().is_empty());
}

#[test]
fn deadlines_hold_before_the_first_attach() {
    let mut rig = Rig::new(config(|config| config.send_timeout = 2 * SECOND));
    let send = rig.push("a");
    rig.pass(2 * SECOND);
    assert_eq!(failure(&send), (ErrorKind::TimedOut, false));
    rig.attach(-1);
    assert!(rig.transmit().is_empty());
}

#[test]
fn without_a_send_timeout_nothing_is_overdue() {
    let mut rig = Rig::attached(config(|config| config.send_timeout = Duration::ZERO));
    let send = rig.push("a");
    rig.transmit();
    rig.detach();
    rig.pass(100_000 * SECOND);
    rig.attach(-1);
    assert_eq!((is_pending(&send), ids(&rig.transmit())), (true, vec![0]));
}

#[test]
fn what_times_out_while_it_is_sealed_is_gone() {
    let mut rig = Rig::attached(ProducerConfig::default());
    let send = rig.push("a");
    let job = rig.producer.take_job(rig.now).expect("a batch");
    rig.pass(30 * SECOND);
    assert_eq!(failure(&send), (ErrorKind::TimedOut, false));
    rig.put(job);
    assert!(rig.transmit().is_empty());
    rig.assert_empty();
}

#[test]
fn a_connection_that_answers_nothing_is_to_be_replaced() {
    for answers in [false, true] {
        let mut rig = Rig::attached(unbatched());
        for _ in 0..2 {
            let first = rig.producer.stats().accepted_messages;
            for _ in 0..40 {
                let _ = rig.push("a");
            }
            rig.transmit();
            rig.pass(30 * SECOND);
            if answers {
                // Too late, and still a sign of life.
                rig.confirm(first);
            }
        }
        assert_eq!(rig.producer.take_wants_reconnect(), !answers);
        assert!(!rig.producer.take_wants_reconnect(), "said once");
    }
}

#[test]
fn who_waits_for_room_gets_it_in_order_and_nobody_overtakes() {
    let mut rig = Rig::attached(room_for(1));
    let _ = rig.push("0");
    let (mut first, mut second) = (Waiter::new("1"), Waiter::new("2"));
    assert!(first.poll(&mut rig).is_pending() && second.poll(&mut rig).is_pending());
    rig.transmit();
    rig.confirm(0);
    assert_eq!((first.woken(), second.woken()), (1, 0));
    let now = rig.now;
    assert!(matches!(rig.producer.push("newcomer".into(), None, || now), Err(PushError::Full(_))));
    assert!(second.poll(&mut rig).is_pending());
    assert!(first.poll(&mut rig).is_ready());
    rig.transmit();
    rig.confirm(1);
    assert!(second.woken() == 1 && second.poll(&mut rig).is_ready());
    assert_eq!(rig.transmit()[0].payloads, ["2"]);
}

#[test]
fn one_receipt_can_make_room_for_many() {
    let mut rig = Rig::attached(config(|config| config.max_pending_messages = 3));
    let _ = (rig.push("a"), rig.push("b"), rig.push("c"));
    let mut waiters = [Waiter::new("1"), Waiter::new("2"), Waiter::new("3"), Waiter::new("4")];
    assert!(waiters.iter_mut().all(|waiter| waiter.poll(&mut rig).is_pending()));
    rig.transmit();
    rig.confirm(0);
    let mut served = 0;
    for waiter in &mut waiters {
        if waiter.woken() == 1 && waiter.poll(&mut rig).is_ready() {
            served += 1;
        }
    }
    assert_eq!((served, waiters[3].woken()), (3, 0));
}

#[test]
fn a_waiter_that_goes_away_passes_its_turn_on() {
    let mut rig = Rig::attached(room_for(1));
    let _ = rig.push("0");
    let mut waiters = [Waiter::new("1"), Waiter::new("2"), Waiter::new("3")];
    assert!(waiters.iter_mut().all(|waiter| waiter.poll(&mut rig).is_pending()));
    waiters[1].give_up(&mut rig);
    rig.transmit();
    rig.confirm(0);
    assert_eq!(waiters[0].woken(), 1);
    waiters[0].give_up(&mut rig);
    assert_eq!((waiters[1].woken(), waiters[2].woken()), (0, 1));
    assert!(waiters[2].poll(&mut rig).is_ready());
}

#[test]
fn the_deadline_counts_from_the_call_through_the_wait_and_the_send() {
    let mut rig = Rig::attached(room_for(1));
    let _ = rig.push("0");
    rig.transmit();
    let (mut served, mut overdue) = (Waiter::new("1"), Waiter::new("2"));
    assert!(served.poll(&mut rig).is_pending() && overdue.poll(&mut rig).is_pending());
    rig.pass(20 * SECOND);
    rig.confirm(0);
    let Poll::Ready(Ok(send)) = served.poll(&mut rig) else { panic!("there is room") };
    rig.transmit();
    rig.pass(10 * SECOND);
    assert_eq!(failure(&send), (ErrorKind::TimedOut, true));
    assert_eq!(overdue.woken(), 1);
    let Poll::Ready(Err(error)) = overdue.poll(&mut rig) else { panic!("its time is over") };
    assert_eq!((error.error().kind(), error.may_be_stored()), (ErrorKind::TimedOut, false));
    assert!(overdue.message.is_some(), "the message is still the caller's");
}

#[test]
fn a_message_that_waited_does_not_shorten_the_time_of_others() {
    let mut rig = Rig::attached(config(|config| config.max_pending_messages = 2));
    let _ = (rig.push("a"), rig.push("b"));
    rig.transmit();
    let mut waiter = Waiter::new("waited");
    assert!(waiter.poll(&mut rig).is_pending());
    rig.pass(20 * SECOND);
    rig.confirm(0);
    let Poll::Ready(Ok(waited)) = waiter.poll(&mut rig) else { panic!("there is room") };
    let fresh = rig.push("fresh");
    assert_eq!(sizes(&rig.transmit()), [1, 1]);
    rig.pass(10 * SECOND);
    assert_eq!(failure(&waited), (ErrorKind::TimedOut, true));
    assert!(is_pending(&fresh));
}

#[test]
fn bytes_are_bounded_and_one_larger_message_passes_alone() {
    let mut rig = Rig::attached(config(|config| {
        config.max_pending_bytes = 1000;
        config.batching = false;
    }));
    let _ = rig.push(vec![0; 5000]);
    let now = rig.now;
    assert!(matches!(rig.producer.push(Message::new("x"), None, || now), Err(PushError::Full(_))));
    rig.transmit();
    rig.confirm(0);
    let _ = (rig.push(vec![0; 600]), rig.push(vec![0; 400]));
    assert!(matches!(rig.producer.push(Message::new("x"), None, || now), Err(PushError::Full(_))));
}
