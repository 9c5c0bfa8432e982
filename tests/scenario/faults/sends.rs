//! Every send resolves once, in time, in order, and says whether the message may be stored.

use super::support::*;

/// Waits for a failure; gives when it came, from `started`, and whether the message may be stored.
async fn refusal(pending: PendingSend, started: Instant) -> (Duration, bool, ErrorKind) {
    let error = within("the failure", pending).await.expect_err("a failure");
    (started.elapsed(), error.may_be_stored(), error.error().kind())
}

/// In time, neither early nor late.
fn assert_on_time(elapsed: Duration, timeout: Duration) {
    assert!(elapsed >= timeout && elapsed <= timeout + SLACK, "{elapsed:?} instead of {timeout:?}");
}

async fn producer_with_timeout(stage: &Stage, timeout: Duration) -> Producer {
    let builder = stage.client.producer(TOPIC).batching(false).send_timeout(timeout);
    created(builder).await
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_receipt_is_lost_is_sent_again() {
    let stage = Stage::deduplicating().await;
    let producer = stage.producer(TOPIC).await;
    stage.broker.faults().on(FaultEvent::Send).disconnect();
    send(&producer, "once").await;
    assert_eq!(stage.net.dials(), 2, "over a second connection");
    assert_eq!(stage.stored(TOPIC).await, ["once"]);
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn deadlines_count_from_the_call_while_receipts_are_withheld() {
    const TIMEOUT: Duration = Duration::from_secs(5);
    let stage = Stage::new().await;
    let producer = producer_with_timeout(&stage, TIMEOUT).await;
    stage.broker.faults().on(FaultEvent::Send).always().drop_response();
    let started = Instant::now();
    let first = enqueue(&producer, "first").await;
    pass(Duration::from_secs(3)).await;
    let later = Instant::now();
    let second = enqueue(&producer, "second").await;
    let (elapsed, may_be_stored, kind) = refusal(first, started).await;
    assert_on_time(elapsed, TIMEOUT);
    assert!(may_be_stored && kind == ErrorKind::TimedOut);
    let (elapsed, may_be_stored, _) = refusal(second, later).await;
    assert_on_time(elapsed, TIMEOUT);
    assert!(may_be_stored);
    // The producer lives: with receipts again, it works.
    stage.broker.faults().clear();
    send(&producer, "third").await;
    stage.close_and_check().await;
}

/// Whatever the producer is kept waiting by, a message that has not left yet fails at its own deadline and is known
/// not to be stored.
#[tokio::test(start_paused = true)]
async fn deadlines_count_from_the_call_in_every_state_of_the_connection() {
    const TIMEOUT: Duration = Duration::from_secs(5);
    for state in ["no broker answers the dial", "connecting", "looking up", "opening", "refused and backing off"] {
        let stage = Stage::new().await;
        let producer = producer_with_timeout(&stage, TIMEOUT).await;
        let faults = stage.broker.faults();
        match state {
            "no broker answers the dial" => stage.net.refuse(true),
            "connecting" => faults.on(FaultEvent::Connect).always().drop_request(),
            "looking up" => faults.on(FaultEvent::Lookup).always().drop_request(),
            "opening" => faults.on(FaultEvent::Producer).always().drop_request(),
            _ => faults.on(FaultEvent::Producer).always().refuse_request(ServerCode::SERVICE_NOT_READY),
        }
        stage.broker.drop_connections();
        until("the loss to be noticed", || producer.is_connected(), |connected| !connected).await;
        let mut waiting = Vec::new();
        for wait in [0, 1, 3] {
            pass(Duration::from_secs(wait)).await;
            waiting.push((Instant::now(), enqueue(&producer, "waits").await));
        }
        for (started, pending) in waiting {
            let (elapsed, may_be_stored, kind) = refusal(pending, started).await;
            assert_on_time(elapsed, TIMEOUT);
            assert!(!may_be_stored, "{state}: it never left");
            assert_eq!(kind, ErrorKind::TimedOut, "{state}");
        }
        stage.net.refuse(false);
        stage.broker.faults().clear();
        until("the producer to be back", || producer.is_connected(), |connected| *connected).await;
        send(&producer, "and it goes on").await;
        stage.close_and_check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_counts_from_the_call_while_it_waits_for_room() {
    const TIMEOUT: Duration = Duration::from_secs(5);
    let stage = Stage::new().await;
    let builder = stage.client.producer(TOPIC).batching(false).send_timeout(TIMEOUT).max_pending_messages(1);
    let producer = created(builder).await;
    stage.broker.faults().on(FaultEvent::Send).always().drop_response();
    let first = enqueue(&producer, "takes the room").await;
    pass(Duration::from_secs(1)).await;
    let started = Instant::now();
    // Room comes when the first fails, at 5 s; what is left for the second is one second.
    let second = within("the second", producer.send("waits for room")).await.expect_err("no receipt");
    assert_on_time(started.elapsed(), TIMEOUT);
    assert_eq!(second.error().kind(), ErrorKind::TimedOut, "{second}");
    within("the first", first).await.expect_err("no receipt");
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_makes_send_wait_and_try_enqueue_give_the_message_back() {
    let stage = Stage::new().await;
    let builder = stage.client.producer(TOPIC).batching(false).max_pending_messages(2);
    let producer = created(builder).await;
    stage.broker.faults().on(FaultEvent::Send).times(2).delay_response(Duration::from_secs(2));
    let pending = enqueue_numbers(&producer, 0..2).await;
    let refused = producer.try_enqueue("2").expect_err("full");
    let pulsar_native::TryEnqueueError::Full { message, .. } = refused else { panic!("{refused}") };
    let started = Instant::now();
    send(&producer, *message).await;
    assert_on_time(started.elapsed(), Duration::from_secs(2));
    confirmed(pending).await;
    assert_eq!(stage.stored(TOPIC).await, numbers(0..3));
    stage.close_and_check().await;
}

/// The connection ends in the middle of a frame, at every place of the conversation: nothing is lost, doubled or out
/// of order where the broker deduplicates, and what is sent again is the same bytes, or the broker would record a violation.
#[tokio::test(start_paused = true)]
async fn a_cut_at_any_byte_loses_nothing_and_doubles_nothing() {
    for sent in [false, true] {
        for at in (1..4000).step_by(if sent { 31 } else { 97 }) {
            let stage = Stage::deduplicating().await;
            let builder = stage.client.producer(TOPIC).name("p").batching_max_messages(3);
            let producer = created(builder).await;
            if sent {
                stage.broker.faults().disconnect_after_bytes_sent(at);
            } else {
                stage.broker.faults().disconnect_after_bytes_received(at);
            }
            let pending = enqueue_numbers(&producer, 0..20).await;
            confirmed(pending).await;
            confirmed(enqueue_numbers(&producer, 20..25).await).await;
            stage.broker.faults().clear();
            assert_eq!(stage.stored(TOPIC).await, numbers(0..25), "cut at byte {at}");
            stage.close_and_check().await;
        }
    }
}

/// The producer is closed, or its connection is, after each number of messages.
#[tokio::test(start_paused = true)]
async fn order_is_kept_across_closes_and_cuts() {
    for batching in [false, true] {
        for cut in [false, true] {
            let stage = Stage::deduplicating().await;
            let mut consumer = stage.consumer(TOPIC).await;
            let builder = stage.client.producer(TOPIC).name("p").batching(batching).batching_max_messages(4);
            let producer = created(builder).await;
            for after in [0, 3, 1, 7, 2] {
                let fault = stage.broker.faults().on(FaultEvent::Send).after(after);
                if cut { fault.disconnect() } else { fault.close() }
            }
            confirmed(enqueue_numbers(&producer, 0..60).await).await;
            let seen = receive_up_to(&mut consumer, "59").await;
            assert_eq!(first_arrivals(&seen), numbers(0..60));
            if !cut {
                assert_eq!(stage.net.dials(), 1, "the connection stayed");
                assert_eq!(seen.len(), 60, "a consumer beside it sees no repetition");
            }
            stage.drained(TOPIC).await;
            assert_eq!(stage.stored(TOPIC).await, numbers(0..60));
            stage.close_and_check().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_receipt_that_comes_twice_changes_nothing() {
    let stage = Stage::new().await;
    let producer = stage.producer(TOPIC).await;
    stage.broker.faults().on(FaultEvent::Send).always().duplicate_response();
    confirmed(enqueue_numbers(&producer, 0..50).await).await;
    assert_eq!(stage.net.dials(), 1);
    assert_eq!(stage.stored(TOPIC).await, numbers(0..50));
    stage.close_and_check().await;
}

/// A receipt above the front of the queue says that one was lost: the connection is no longer to be trusted.
#[tokio::test(start_paused = true)]
async fn receipts_out_of_order_replace_the_connection_and_lose_nothing() {
    let stage = Stage::deduplicating().await;
    let builder = stage.client.producer(TOPIC).name("p").batching(false);
    let producer = created(builder).await;
    stage.broker.faults().on(FaultEvent::Send).after(5).reverse(3);
    confirmed(enqueue_numbers(&producer, 0..20).await).await;
    assert_eq!(stage.stored(TOPIC).await, numbers(0..20));
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn a_receipt_that_never_came_is_noticed_by_the_next_one() {
    let stage = Stage::deduplicating().await;
    let builder = stage.client.producer(TOPIC).name("p").batching(false);
    let producer = created(builder).await;
    stage.broker.faults().on(FaultEvent::Send).after(2).drop_response();
    let started = Instant::now();
    confirmed(enqueue_numbers(&producer, 0..6).await).await;
    assert!(started.elapsed() < Duration::from_secs(5), "not by a time-out: {:?}", started.elapsed());
    assert_eq!(stage.stored(TOPIC).await, numbers(0..6));
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn receipts_that_come_late_settle_their_sends() {
    let stage = Stage::new().await;
    let producer = stage.producer(TOPIC).await;
    stage.broker.faults().on(FaultEvent::Send).always().delay_response(Duration::from_secs(20));
    confirmed(enqueue_numbers(&producer, 0..10).await).await;
    assert_eq!(stage.stored(TOPIC).await, numbers(0..10));
    stage.close_and_check().await;
}

/// A message fails by time, its receipt comes afterwards: nothing is confused by it, the next ones are confirmed.
#[tokio::test(start_paused = true)]
async fn a_receipt_after_the_deadline_settles_no_other_send() {
    let stage = Stage::new().await;
    let producer = producer_with_timeout(&stage, Duration::from_secs(5)).await;
    stage.broker.faults().on(FaultEvent::Send).delay_response(Duration::from_secs(8));
    let late = enqueue(&producer, "late").await;
    let error = within("the failure", late).await.expect_err("no receipt in time");
    assert!(error.may_be_stored());
    confirmed(enqueue_numbers(&producer, 0..3).await).await;
    pass(Duration::from_secs(5)).await;
    confirmed(enqueue_numbers(&producer, 3..6).await).await;
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_broker_does_not_allow_fails_alone() {
    let stage = Stage::new().await;
    let producer = stage.producer(TOPIC).await;
    stage.broker.faults().on(FaultEvent::Send).after(1).refuse_request(ServerCode::NOT_ALLOWED_ERROR);
    let mut pending = enqueue_numbers(&producer, 0..3).await;
    let refused = pending.remove(1);
    let error = within("the refusal", refused).await.expect_err("refused");
    assert_eq!(error.error().kind(), ErrorKind::NotAllowed, "{error}");
    assert!(!error.may_be_stored(), "{error}");
    confirmed(pending).await;
    assert_eq!(stage.stored(TOPIC).await, ["0", "2"]);
    stage.close_and_check().await;
}

/// The checksum was right here, so the way there is to blame: it is sent once more.
#[tokio::test(start_paused = true)]
async fn a_message_damaged_in_transit_is_sent_once_more() {
    let stage = Stage::new().await;
    let producer = stage.producer(TOPIC).await;
    stage.broker.faults().on(FaultEvent::Send).refuse_request(ServerCode::CHECKSUM_ERROR);
    send(&producer, "again").await;
    assert_eq!(stage.stored(TOPIC).await, ["again"]);
    // Twice for the same message is its end.
    stage.broker.faults().on(FaultEvent::Send).times(2).refuse_request(ServerCode::CHECKSUM_ERROR);
    let error = within("the refusal", producer.send("spoiled")).await.expect_err("refused twice");
    assert!(!error.may_be_stored(), "{error}");
    send(&producer, "the next").await;
    assert_eq!(stage.stored(TOPIC).await, ["again", "the next"]);
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn other_refusals_of_a_send_reopen_the_producer() {
    for code in [ServerCode::PERSISTENCE_ERROR, ServerCode::UNKNOWN_ERROR, ServerCode(99)] {
        let stage = Stage::deduplicating().await;
        let builder = stage.client.producer(TOPIC).name("p").batching(false);
        let producer = created(builder).await;
        // A broker that cannot store one stores none of those behind it.
        stage.broker.faults().on(FaultEvent::Send).after(2).times(4).refuse_request(code);
        confirmed(enqueue_numbers(&producer, 0..6).await).await;
        assert_eq!(first_arrivals(&stage.stored(TOPIC).await), numbers(0..6), "{code:?}");
        stage.close_and_check().await;
    }
}

/// What waits in all its forms fails at once, not at its deadline.
#[tokio::test(start_paused = true)]
async fn a_terminated_topic_fails_everything_that_waits_at_once() {
    let stage = Stage::new().await;
    let builder = stage.client.producer(TOPIC).batching(false).max_pending_messages(2);
    let producer = created(builder).await;
    stage.broker.faults().on(FaultEvent::Send).times(2).drop_response();
    let pending = enqueue_numbers(&producer, 0..2).await;
    let waiting = producer.clone();
    let no_room = spawn(async move { waiting.send("no room").await });
    let flushing = producer.clone();
    let flush = spawn(async move { flushing.flush().await });
    struck(&stage.broker, 2).await;
    let started = Instant::now();
    stage.broker.terminate(TOPIC);
    for one in pending {
        let error = within("the failure", one).await.expect_err("terminated");
        assert_eq!(error.error().kind(), ErrorKind::TopicTerminated, "{error}");
        assert!(error.may_be_stored(), "its bytes went out");
    }
    let error = within("the failure", no_room).await.expect("no panic").expect_err("terminated");
    assert_eq!(error.error().kind(), ErrorKind::TopicTerminated, "{error}");
    assert!(!error.may_be_stored(), "it never left");
    failed(within("the flush", flush).await.expect("no panic"), ErrorKind::TopicTerminated);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    let error = within("the refusal", producer.send("too late")).await.expect_err("over");
    assert_eq!(error.error().kind(), ErrorKind::TopicTerminated, "{error}");
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn flush_resolves_after_all_that_was_accepted_before_it_whatever_happens() {
    let stage = Stage::deduplicating().await;
    let builder = stage
        .client
        .producer(TOPIC)
        .name("p")
        .batching_max_publish_delay(Duration::from_secs(20))
        .batching_max_messages(7);
    let producer = created(builder).await;
    stage.broker.faults().on(FaultEvent::Send).after(1).disconnect();
    stage.broker.faults().on(FaultEvent::Send).after(3).close();
    let pending = enqueue_numbers(&producer, 0..50).await;
    within("the flush", producer.flush()).await.expect("all are stored");
    assert_eq!(stage.stored(TOPIC).await, numbers(0..50));
    confirmed(pending).await;
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_too_big_fails_alone_before_it_is_sent() {
    let stage = Stage::with(EmbeddedBroker::builder().max_message_size(1000), |builder| builder).await;
    let producer = stage.producer(TOPIC).await;
    let before = enqueue(&producer, "before").await;
    let error = within("the refusal", producer.send(vec![0; 2000])).await.expect_err("too big");
    assert_eq!(error.error().kind(), ErrorKind::MessageTooLarge, "{error}");
    assert!(!error.may_be_stored(), "{error}");
    confirmed(vec![before]).await;
    send(&producer, "after").await;
    assert_eq!(stage.net.dials(), 1, "the broker never saw it");
    assert_eq!(stage.stored(TOPIC).await, ["before", "after"]);
    stage.close_and_check().await;
}

/// A producer that the application drops still sends what was accepted, over a broker that stops meanwhile.
#[tokio::test(start_paused = true)]
async fn accepted_messages_are_sent_after_the_drop_over_a_new_connection() {
    let stage = Stage::deduplicating().await;
    let builder = stage.client.producer(TOPIC).name("p").batching(false);
    let producer = created(builder).await;
    stage.broker.faults().on(FaultEvent::Send).after(2).disconnect();
    drop(enqueue_numbers(&producer, 0..10).await);
    drop(producer);
    let stored = || stage.broker.stats(TOPIC).map(|stats| stats.entries);
    until("all to be stored", stored, |stored| *stored == Some(10)).await;
    until("the producer to go", || stage.attached(TOPIC), |seen| *seen == (0, 0)).await;
    assert_eq!(stage.stored(TOPIC).await, numbers(0..10));
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn a_flush_of_nothing_sends_nothing() {
    let stage = Stage::new().await;
    let producer = stage.producer(TOPIC).await;
    for _ in 0..3 {
        within("the flush", producer.flush()).await.expect("nothing to do");
    }
    pass(Duration::from_secs(1)).await;
    assert_eq!(stage.broker.stats(TOPIC).expect("the topic exists").entries, 0);
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_callback_harms_nothing_else() {
    let stage = Stage::new().await;
    let producer = stage.producer(TOPIC).await;
    within("capacity", producer.enqueue_with("0", |_| panic!("on purpose"))).await.expect("accepted");
    confirmed(enqueue_numbers(&producer, 1..5).await).await;
    assert_eq!(stage.net.dials(), 1);
    assert_eq!(stage.stored(TOPIC).await, numbers(0..5));
    stage.close_and_check().await;
}

/// The copy of a receipt arrives while the next message waits for its own, which never comes on that connection.
#[tokio::test(start_paused = true)]
async fn the_receipt_of_one_message_does_not_settle_the_next() {
    let stage = Stage::deduplicating().await;
    let builder = stage.client.producer(TOPIC).name("p").batching(false);
    let producer = created(builder).await;
    stage.broker.faults().on(FaultEvent::Send).duplicate_response();
    stage.broker.faults().on(FaultEvent::Send).drop_request();
    let mut pending = enqueue_numbers(&producer, 0..2).await;
    let mut second = pending.pop().expect("two");
    confirmed(pending).await;
    struck(&stage.broker, 2).await;
    assert!(tokio::time::timeout(Duration::from_secs(5), &mut second).await.is_err(), "it is not stored");
    stage.broker.drop_connections();
    confirmed(vec![second]).await;
    assert_eq!(stage.stored(TOPIC).await, numbers(0..2));
    stage.close_and_check().await;
}

/// The output is full and stays so: no producer gets a turn to write, and every deadline holds all the same.
#[tokio::test(start_paused = true)]
async fn deadlines_hold_while_the_peer_does_not_read() {
    let keep_alive_interval = Duration::from_secs(10);
    let stage =
        Stage::with(EmbeddedBroker::builder(), |builder| builder.keep_alive_interval(keep_alive_interval)).await;
    let timeout = Duration::from_secs(2);
    let producer = producer_with_timeout(&stage, timeout).await;
    let others = [producer_with_timeout(&stage, timeout).await, producer_with_timeout(&stage, timeout).await];
    stage.broker.faults().stall_reads();
    let started = Instant::now();
    let mut pending = Vec::new();
    for _ in 0..200 {
        pending.push(enqueue(&producer, vec![b'x'; 10_000]).await);
    }
    // Nobody gets a turn to write by now, so nobody looks at these for their own sake.
    let late = others.into_iter().zip(1..).map(|(other, number)| {
        tokio::spawn(async move {
            pass(number * timeout / 4).await;
            let started = Instant::now();
            refusal(enqueue(&other, "late").await, started).await
        })
    });
    let late: Vec<_> = late.collect();
    for pending in pending {
        let (elapsed, _, kind) = refusal(pending, started).await;
        assert_eq!(kind, ErrorKind::TimedOut);
        assert_on_time(elapsed, timeout);
    }
    for late in late {
        let (elapsed, _, kind) = late.await.expect("no panic");
        assert_eq!(kind, ErrorKind::TimedOut);
        assert_on_time(elapsed, timeout);
    }
    stage.close_and_check().await;
}

/// A time that the protocol does not have is refused by name, and harms nothing else.
#[tokio::test(start_paused = true)]
async fn an_event_time_before_1970_is_refused() {
    let stage = Stage::new().await;
    for batching in [true, false] {
        let builder = stage.client.producer(TOPIC).batching(batching);
        let producer = created(builder).await;
        let early = std::time::UNIX_EPOCH - Duration::from_secs(1);
        let message = Message::new("early").with_event_time(early);
        let refused = within("the refusal", producer.send(message)).await.expect_err("before 1970");
        assert_eq!(refused.error().kind(), ErrorKind::InvalidArgument, "{refused}");
        assert!(refused.to_string().contains("event_time") && !refused.may_be_stored(), "{refused}");
        // A delivery time of before is no error: it has passed.
        send(&producer, Message::new("x").with_deliver_at(early)).await;
    }
    let mut consumer = stage.shared(TOPIC).await;
    assert_eq!([text(&mut consumer).await, text(&mut consumer).await], ["x", "x"]);
    stage.close_and_check().await;
}
