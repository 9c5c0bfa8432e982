//! Flush, callbacks and close.

use super::*;

#[test]
fn flush_waits_for_what_was_accepted_before_it_and_no_more() {
    let mut harness = ProducerHarness::attached(config(|config| config.batching_max_publish_delay = SECOND));
    let mut empty = harness.flush();
    assert!(matches!(poll_reply(&mut empty), Some(Ok(()))));
    let _ = (harness.push("a"), harness.push("b"));
    let mut first = harness.flush();
    let _ = harness.push("c");
    let mut second = harness.flush();
    let sent = harness.transmit();
    assert_eq!(sizes(&sent), [2, 1], "flushed batches are not merged");
    assert!(poll_reply(&mut first).is_none());
    harness.confirm(0);
    assert!(matches!(poll_reply(&mut first), Some(Ok(()))));
    assert!(poll_reply(&mut second).is_none());
    harness.confirm(2);
    assert!(matches!(poll_reply(&mut second), Some(Ok(()))));
    assert!(harness.transmit().is_empty(), "an empty batch never leaves");
}

#[test]
fn flush_reports_the_first_failure_since_the_last_one_once() {
    let mut harness = ProducerHarness::attached(unbatched());
    let _ = (harness.push("a"), harness.push("b"), harness.push("c"));
    harness.transmit();
    harness.send_error(0, ServerCode::NOT_ALLOWED_ERROR);
    let mut flush = harness.flush();
    harness.pass(30 * SECOND);
    assert!(matches!(poll_reply(&mut flush), Some(Err(error)) if error.kind() == ErrorKind::NotAllowed));
    assert!(matches!(poll_reply(&mut harness.flush()), Some(Ok(()))));
}

#[test]
fn flush_while_detached_ends_after_the_reattach() {
    let mut harness = ProducerHarness::attached(ProducerConfig::default());
    harness.detach();
    let _ = harness.push("a");
    let mut flush = harness.flush();
    harness.attach(-1);
    harness.transmit();
    assert!(poll_reply(&mut flush).is_none());
    harness.confirm(0);
    assert!(matches!(poll_reply(&mut flush), Some(Ok(()))));
}

#[test]
fn callbacks_run_without_the_lock_and_may_send() {
    let (to, _created) = Reply::pair();
    let harness = ProducerHarness::attached(unbatched());
    let (now, peer) = (harness.now, harness.peer.clone());
    let producer = Producer::new(ProducerId(1), "persistent://a/b/t".into(), -1, Arc::new(unbatched()), to, now);
    let endpoint = Endpoint::new(EndpointId::Producer(ProducerId(1)), producer, ReadyList::new());
    let opened = pb::CommandProducerSuccess { producer_name: "p".into(), ..Default::default() };
    endpoint.with_deferred(&mut Deferred::new(), |producer, deferred| {
        producer.open_request(now);
        producer.on_attached(&opened, &peer, now, deferred);
    });
    let ended = Arc::new(Mutex::new(Vec::new()));
    let (again, noted) = (endpoint.clone(), ended.clone());
    let callback = Box::new(move |result: Result<MessageId, SendError>| {
        noted.lock().expect("unpoisoned").push(result.map(|id| id.entry_id()));
        let sent = again.with(|producer| producer.push("second".into(), None, || now).is_ok());
        assert!(sent, "it has the lock to itself");
    });
    let mut deferred = Deferred::new();
    endpoint.with_deferred(&mut deferred, |producer, deferred| {
        let _ = producer.push("first".into(), Some(callback), || now).expect("room");
        assert!(producer.take_job(now).is_none(), "one small message is stamped at once");
        let (mut tx, mut asks) = (TxBuf::new(), Vec::new());
        let _ = producer.poll_transmit(&mut Outbox::new(&mut tx, usize::MAX, &mut asks), now);
        let receipt = Receipt { producer_id: 1, sequence_id: 0, highest_sequence_id: 0, ledger_id: 1, entry_id: 17 };
        producer.on_receipts(&[receipt], now, deferred).expect("a good receipt");
    });
    assert!(ended.lock().expect("unpoisoned").is_empty());
    deferred.fire();
    assert_eq!(*ended.lock().expect("unpoisoned"), [Ok(Some(17))]);
    let stats = endpoint.with_deferred(&mut deferred, |producer, _| producer.stats());
    assert_eq!((stats.accepted_messages, stats.pending_messages), (2, 1));
}

/// So many bytes of the user's, whose drop asks the producer.
struct Asks(usize, Arc<Endpoint<Producer>>, Arc<Mutex<Vec<u64>>>);

impl AsRef<[u8]> for Asks {
    fn as_ref(&self) -> &[u8] {
        &[7; 20_000][..self.0]
    }
}

impl Drop for Asks {
    fn drop(&mut self) {
        let accepted = self.1.with(|producer| producer.stats().accepted_messages);
        self.2.lock().expect("unpoisoned").push(accepted);
    }
}

#[test]
fn a_payload_that_stayed_alone_in_its_batch_is_dropped_without_the_lock() {
    for (bytes, has_job) in [(20_000, true), (20, false)] {
        drop_alone(bytes, has_job);
    }
}

fn drop_alone(bytes: usize, has_job: bool) {
    let (to, _created) = Reply::pair();
    let harness = ProducerHarness::attached(ProducerConfig::default());
    let (now, peer, config) = (harness.now, harness.peer.clone(), Arc::new(ProducerConfig::default()));
    let producer = Producer::new(ProducerId(1), "persistent://a/b/t".into(), -1, config, to, now);
    let endpoint = Endpoint::new(EndpointId::Producer(ProducerId(1)), producer, ReadyList::new());
    let opened = pb::CommandProducerSuccess { producer_name: "p".into(), ..Default::default() };
    let dropped = Arc::new(Mutex::new(Vec::new()));
    let message = Message::new(Bytes::from_owner(Asks(bytes, endpoint.clone(), dropped.clone())));
    let mut deferred = Deferred::new();
    endpoint.with_deferred(&mut deferred, |producer, deferred| {
        producer.open_request(now);
        producer.on_attached(&opened, &peer, now, deferred);
        let _ = producer.push(message, None, || now).expect("room");
        let job = producer.take_job(now);
        assert_eq!(job.is_some(), has_job, "{bytes} bytes");
        job.into_iter().for_each(|job| producer.put_job(job.run(), now, deferred));
        let (mut tx, mut asks) = (TxBuf::new(), Vec::new());
        let _ = producer.poll_transmit(&mut Outbox::new(&mut tx, usize::MAX, &mut asks), now);
        drop(tx);
        let receipt = Receipt { producer_id: 1, sequence_id: 0, highest_sequence_id: 0, ledger_id: 1, entry_id: 17 };
        producer.on_receipts(&[receipt], now, deferred).expect("a good receipt");
        assert!(dropped.lock().expect("unpoisoned").is_empty(), "the lock is held");
    });
    deferred.fire();
    assert_eq!(*dropped.lock().expect("unpoisoned"), [1]);
}

#[test]
fn callbacks_of_a_batch_get_their_own_ids() {
    let mut harness = ProducerHarness::attached(ProducerConfig::default());
    let ended = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..3 {
        let (noted, now) = (ended.clone(), harness.now);
        let callback = Box::new(move |result: Result<MessageId, SendError>| {
            noted.lock().expect("unpoisoned").push(result.expect("stored").batch_index());
        });
        let _ = harness.producer.push("m".into(), Some(callback), || now).expect("room");
    }
    harness.transmit();
    harness.confirm(0);
    assert_eq!(*ended.lock().expect("unpoisoned"), [Some(0), Some(1), Some(2)]);
}

#[test]
fn close_sends_the_rest_then_closes_at_the_broker() {
    let mut harness = ProducerHarness::attached(ProducerConfig::default());
    let send = harness.push("a");
    let mut reply = harness.close();
    let now = harness.now;
    let refused = harness.producer.push("b".into(), None, || now);
    assert!(matches!(refused, Err(PushError::Refused(error, _)) if error.error().kind() == ErrorKind::Closed));
    assert_eq!(ids(&harness.transmit()), [0]);
    assert!(harness.asked.is_empty(), "not before the receipt");
    harness.confirm(0);
    assert!(!is_pending(&send));
    harness.transmit();
    harness.transmit();
    assert_eq!(harness.asked.len(), 1, "asked once");
    assert!(matches!(&harness.asked[0].1, Command::CloseProducer(close) if close.producer_id == 7));
    assert!(poll_reply(&mut reply).is_none());
    let stray = Op { kind: OpKind::Close, number: 99 };
    harness.producer.on_response(stray, success(), harness.now, &mut Deferred::new());
    assert!(!harness.producer.is_finished());
    let mut second = harness.close();
    harness.answer_close(success());
    assert!(matches!(poll_reply(&mut reply), Some(Ok(()))) && matches!(poll_reply(&mut second), Some(Ok(()))));
    assert!(harness.producer.is_finished() && harness.producer.is_closed_at_broker());
    assert!(matches!(poll_reply(&mut harness.close()), Some(Ok(()))));
}

#[test]
fn close_with_nothing_left_while_detached_is_over_at_once() {
    let mut harness = ProducerHarness::new(ProducerConfig::default());
    assert!(matches!(poll_reply(&mut harness.close()), Some(Ok(()))));
    assert!(matches!(poll_reply(&mut harness.created), Some(Err(error)) if error.kind() == ErrorKind::Closed));
    assert!(harness.producer.is_finished() && harness.producer.is_closed_at_broker());
}

#[test]
fn close_while_opening_waits_for_the_answer() {
    let mut harness = ProducerHarness::new(ProducerConfig::default());
    harness.producer.open_request(harness.now);
    let mut reply = harness.close();
    assert!(poll_reply(&mut reply).is_none() && harness.transmit().is_empty() && harness.asked.is_empty());
    harness.opened(-1);
    harness.transmit();
    harness.answer_close(success());
    assert!(matches!(poll_reply(&mut reply), Some(Ok(()))));

    let mut harness = ProducerHarness::new(ProducerConfig::default());
    harness.producer.open_request(harness.now);
    let mut reply = harness.close();
    harness.detach();
    assert!(matches!(poll_reply(&mut reply), Some(Ok(()))), "there is nothing to close");
}

#[test]
fn close_while_detached_sends_what_is_left_after_the_reattach() {
    let mut harness = ProducerHarness::attached(ProducerConfig::default());
    harness.detach();
    let send = harness.push("a");
    let mut reply = harness.close();
    harness.pass(SECOND);
    assert!(poll_reply(&mut reply).is_none() && is_pending(&send));
    harness.attach(-1);
    assert_eq!(ids(&harness.transmit()), [0]);
    harness.confirm(0);
    harness.transmit();
    harness.answer_close(success());
    assert!(matches!(poll_reply(&mut reply), Some(Ok(()))));
}

#[test]
fn close_gives_up_when_the_sends_are_overdue() {
    let timeouts = [(30 * SECOND, 30), (Duration::ZERO, 30)];
    for (send_timeout, seconds) in timeouts {
        let mut harness = ProducerHarness::attached(config(|config| config.send_timeout = send_timeout));
        harness.detach();
        let send = harness.push("a");
        let mut reply = harness.close();
        harness.pass((seconds - 1) * SECOND);
        assert!(poll_reply(&mut reply).is_none());
        harness.pass(SECOND);
        assert_eq!(failure(&send), (ErrorKind::TimedOut, false));
        assert!(poll_reply(&mut reply).is_some() && harness.producer.is_finished());
        harness.assert_empty();
    }
}

#[test]
fn a_close_that_nobody_answers_ends_with_the_operation_timeout() {
    let mut harness = ProducerHarness::attached(ProducerConfig::default());
    let mut reply = harness.close();
    harness.transmit();
    harness.pass(30 * SECOND);
    assert!(matches!(poll_reply(&mut reply), Some(Err(error)) if error.kind() == ErrorKind::TimedOut));
    assert!(harness.producer.is_finished() && !harness.producer.is_closed_at_broker());
}

#[test]
fn a_connection_lost_during_the_close_closes_too() {
    let mut harness = ProducerHarness::attached(ProducerConfig::default());
    let mut reply = harness.close();
    harness.transmit();
    harness.detach();
    assert!(matches!(poll_reply(&mut reply), Some(Ok(()))));
}

#[test]
fn close_sends_those_away_who_wait_for_room() {
    let mut harness = ProducerHarness::attached(room_for(1));
    let _ = harness.push("0");
    let mut waiter = Waiter::new("1");
    assert!(waiter.poll(&mut harness).is_pending());
    let _reply = harness.close();
    assert_eq!(waiter.woken(), 1);
    assert!(matches!(waiter.poll(&mut harness), Poll::Ready(Err(error)) if error.error().kind() == ErrorKind::Closed));
}

#[test]
fn a_producer_that_goes_away_leaves_nobody_waiting() {
    let mut harness = ProducerHarness::attached(ProducerConfig::default());
    let send = harness.push("a");
    let mut flush = harness.flush();
    drop(harness);
    assert_eq!(failure(&send), (ErrorKind::Closed, false));
    assert!(matches!(poll_reply(&mut flush), Some(Err(_))));
}
