//! Receipts, re-sends and refusals.

use super::*;

#[test]
fn a_receipt_of_a_batch_gives_each_member_its_id() {
    let mut harness = ProducerHarness::attached(ProducerConfig::default());
    let sends = [harness.push("a"), harness.push("b")];
    harness.transmit();
    harness.confirm(0);
    for (index, send) in sends.iter().enumerate() {
        let id = id_of(send);
        assert_eq!((id.ledger_id(), id.entry_id(), id.partition()), (Some(3), Some(0), Some(2)));
        assert_eq!((id.batch_index(), id.batch_size()), (Some(index as u32), Some(2)));
    }
    assert_eq!(harness.producer.last_sequence_id(), Some(1));
    let alone = harness.push("c");
    harness.transmit();
    harness.confirm(2);
    assert_eq!((id_of(&alone).batch_index(), id_of(&alone).batch_size()), (None, None));
}

#[test]
fn a_duplicate_is_a_success_without_a_place() {
    let mut harness = ProducerHarness::attached(unbatched());
    let send = harness.push("a");
    harness.transmit();
    let receipt = Receipt { ledger_id: u64::MAX, entry_id: u64::MAX, ..harness.receipt(0) };
    harness.producer.on_receipts(&[receipt], harness.now, &mut Deferred::new()).expect("a good receipt");
    assert_eq!((id_of(&send).ledger_id(), id_of(&send).entry_id()), (None, None));
}

#[test]
fn stale_receipts_are_counted_and_future_ones_break_the_connection() {
    let mut harness = ProducerHarness::attached(unbatched());
    let sends = [harness.push("a"), harness.push("b"), harness.push("c")];
    harness.transmit();
    let receipts = [harness.receipt(0), harness.receipt(0), harness.receipt(2), harness.receipt(1)];
    let violation = harness.producer.on_receipts(&receipts, harness.now, &mut Deferred::new()).expect_err("2 before 1");
    assert!(violation.what.contains("sequence ids 2"), "{}", violation.what);
    assert!(!is_pending(&sends[0]) && is_pending(&sends[1]) && is_pending(&sends[2]));
    assert_eq!(harness.producer.stats().stale_receipts, 1);
    // Never sent: no receipt can mean it.
    let _ = harness.push("d");
    harness.confirm(1);
    harness.confirm(2);
    let early = harness.receipt(3);
    assert!(harness.producer.on_receipts(&[early], harness.now, &mut Deferred::new()).is_err());
    // Nothing waits at all.
    harness.transmit();
    harness.confirm(3);
    harness.confirm(9);
    assert_eq!(harness.producer.stats().stale_receipts, 2);
    harness.assert_empty();
}

#[test]
fn what_is_unanswered_goes_out_again_byte_for_byte() {
    let mut harness = ProducerHarness::attached(config(|config| config.batching_max_messages = 2));
    for at in 0..5 {
        let _ = harness.push(format!("m{at}"));
    }
    let _ = harness.push(vec![9; 50_000]);
    let before = harness.transmit();
    harness.confirm(0);
    harness.detach();
    harness.pass(5 * SECOND);
    assert!(harness.transmit().is_empty());
    harness.attach(-1);
    let after = harness.transmit();
    let raw = |sent: &[Sent]| sent.iter().map(|sent| sent.raw.clone()).collect::<Vec<_>>();
    assert_eq!(raw(&after), raw(&before[1..]));
}

#[test]
fn receipts_after_the_broker_closed_the_producer_are_real() {
    let mut harness = ProducerHarness::attached(unbatched());
    let sends = [harness.push("a"), harness.push("b"), harness.push("c")];
    harness.transmit();
    harness.detach();
    harness.confirm(0);
    assert!(!is_pending(&sends[0]));
    harness.producer.open_request(harness.now);
    harness.confirm(1);
    harness.opened(-1);
    assert_eq!(ids(&harness.transmit()), [2], "what is stored is not sent again");
}

#[test]
fn a_smaller_limit_at_the_next_broker_fails_what_is_too_large_for_it() {
    let mut harness = ProducerHarness::attached(unbatched());
    let sends = [harness.push(vec![0; 3000]), harness.push(vec![0; 100])];
    harness.transmit();
    harness.detach();
    harness.peer.max_message_size = 2000;
    harness.attach(-1);
    assert_eq!(failure(&sends[0]), (ErrorKind::MessageTooLarge, true));
    assert_eq!(ids(&harness.transmit()), [1]);
    harness.confirm(1);
    harness.assert_empty();
}

#[test]
fn a_refused_message_fails_alone_wherever_it_is() {
    let mut harness = ProducerHarness::attached(unbatched());
    let sends = [harness.push("a"), harness.push("b"), harness.push("c")];
    harness.transmit();
    assert_eq!(harness.send_error(1, ServerCode::NOT_ALLOWED_ERROR), AfterNotification::Stay);
    assert_eq!(failure(&sends[1]), (ErrorKind::NotAllowed, false));
    assert_eq!(harness.send_error(1, ServerCode::NOT_ALLOWED_ERROR), AfterNotification::Stay, "late, and of nothing");
    harness.confirm(0);
    harness.confirm(2);
    assert!(id_of(&sends[0]) < id_of(&sends[2]));
    harness.assert_empty();
}

#[test]
fn a_refused_batch_goes_by_its_highest_id() {
    let mut harness = ProducerHarness::attached(ProducerConfig::default());
    let sends = [harness.push("a"), harness.push("b")];
    harness.transmit();
    assert_eq!(harness.send_error(1, ServerCode::NOT_ALLOWED_ERROR), AfterNotification::Stay);
    assert!(sends.iter().all(|send| failure(send) == (ErrorKind::NotAllowed, false)));
}

#[test]
fn a_checksum_error_over_sound_bytes_sends_all_again_once() {
    let mut harness = ProducerHarness::attached(unbatched());
    let sends = [harness.push("a"), harness.push(vec![5; 20_000])];
    harness.transmit();
    assert!(matches!(harness.send_error(1, ServerCode::CHECKSUM_ERROR), AfterNotification::Reattach(_)));
    harness.detach();
    harness.attach(-1);
    assert_eq!(ids(&harness.transmit()), [0, 1]);
    assert_eq!(harness.send_error(1, ServerCode::CHECKSUM_ERROR), AfterNotification::Stay);
    assert_eq!(failure(&sends[1]), (ErrorKind::Server, false));
    assert!(is_pending(&sends[0]));
}

#[test]
fn a_terminated_topic_fails_everything_at_once() {
    let mut harness = ProducerHarness::attached(unbatched());
    let sends = [harness.push("a"), harness.push("b")];
    harness.transmit();
    let unsent = harness.push("c");
    let mut flush = harness.flush();
    assert_eq!(harness.send_error(0, ServerCode::TOPIC_TERMINATED_ERROR), AfterNotification::Stay);
    assert!(sends.iter().all(|send| failure(send) == (ErrorKind::TopicTerminated, true)));
    assert_eq!(failure(&unsent), (ErrorKind::TopicTerminated, false));
    assert!(matches!(poll_reply(&mut flush), Some(Err(error)) if error.kind() == ErrorKind::TopicTerminated));
    let now = harness.now;
    let refused = harness.producer.push("d".into(), None, || now);
    assert!(matches!(refused, Err(PushError::Refused(error, _)) if error.error().kind() == ErrorKind::TopicTerminated));
    assert!(harness.producer.is_finished() && harness.producer.poll_deadline().is_none());
    harness.assert_empty();
}

#[test]
fn any_other_refusal_attaches_afresh() {
    let mut harness = ProducerHarness::attached(unbatched());
    let send = harness.push("a");
    harness.transmit();
    assert!(matches!(harness.send_error(0, ServerCode::PERSISTENCE_ERROR), AfterNotification::Reattach(_)));
    harness.detach();
    assert_eq!(harness.send_error(0, ServerCode::PERSISTENCE_ERROR), AfterNotification::Stay, "it is detached already");
    assert!(is_pending(&send));
}
