//! A reader that never stops, and connections that are not what they seem.

use super::support::*;

const KEEP_ALIVE: Duration = Duration::from_secs(10);

async fn stage() -> Stage {
    Stage::with(EmbeddedBroker::builder().broker_deduplication_enabled(true), |builder| {
        builder.keep_alive_interval(KEEP_ALIVE)
    })
    .await
}

async fn named(stage: &Stage) -> Producer {
    let builder = stage.client.producer(TOPIC).name("p").batching(false);
    let builder = builder.send_timeout(Duration::from_secs(120));
    created(builder).await
}

/// The connection stays open and carries nothing: found out within two keep-alive intervals, idle or not.
#[tokio::test(start_paused = true)]
async fn an_unresponsive_connection_is_detected_in_two_keep_alive_intervals() {
    for busy in [true, false] {
        let stage = stage().await;
        let producer = named(&stage).await;
        let mut consumer = stage.consumer(TOPIC).await;
        pass(Duration::from_secs(7)).await;
        stage.broker.faults().blackhole();
        let started = Instant::now();
        let pending = if busy { enqueue_numbers(&producer, 0..5).await } else { Vec::new() };
        until("a second dial", || stage.net.dials(), |dials| *dials == 2).await;
        assert!(started.elapsed() <= 2 * KEEP_ALIVE + SLACK, "{:?}", started.elapsed());
        confirmed(pending).await;
        // What the broker still holds of the dead connection gives way.
        send(&producer, "last").await;
        receive_up_to(&mut consumer, "last").await;
        assert_eq!(stage.attached(TOPIC), (1, 1));
        stage.close_and_check().await;
    }
}

/// The peer sends, and pings, but reads no more, while sends flood: its frames are taken until it is found out.
#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_reading_is_detected_and_still_read_from() {
    let stage = stage().await;
    let producer = named(&stage).await;
    let mut consumer = stage.consumer(TOPIC).await;
    stage.broker.faults().stall_reads();
    let started = Instant::now();
    // More than the pipe holds.
    let mut pending = Vec::new();
    for _ in 0..40 {
        pending.push(enqueue(&producer, vec![b'x'; 10_000]).await);
    }
    // Others publish: the dead connection still delivers.
    let other = builder(&stage.broker, &stage.net).connect();
    let other = within("the connection", other).await.expect("a client");
    let second = created(other.producer(TOPIC)).await;
    send(&second, "delivered meanwhile").await;
    assert_eq!(text(&mut consumer).await, "delivered meanwhile");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    confirmed(pending).await;
    assert!(started.elapsed() <= 2 * KEEP_ALIVE + Duration::from_secs(5), "{:?}", started.elapsed());
    drop(second);
    within("the close", other.close()).await.expect("closed");
    stage.close_and_check().await;
}

/// The broker pings every second and ends connections that do not answer: a flood of sends does not keep the answers.
#[tokio::test(start_paused = true)]
async fn pings_are_answered_under_load_with_a_full_queue() {
    let broker = EmbeddedBroker::builder().keep_alive_interval(Duration::from_secs(1));
    let stage = Stage::with(broker, |builder| builder).await;
    let mut consumer = stage.consumer(TOPIC).await;
    let builder = stage.client.producer(TOPIC).max_pending_bytes(100_000);
    let producer = created(builder).await;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(20) {
        confirmed(enqueue_numbers(&producer, 0..200).await).await;
        pass(Duration::from_millis(50)).await;
    }
    assert_eq!(stage.net.dials(), 1, "it was never silent");
    assert_eq!(text(&mut consumer).await, "0");
    stage.close_and_check().await;
}

/// Pings of the peer alone are no proof that it serves us.
#[tokio::test(start_paused = true)]
async fn a_peer_that_only_pings_is_disconnected() {
    let broker =
        EmbeddedBroker::builder().keep_alive_interval(Duration::from_secs(1)).broker_deduplication_enabled(true);
    let stage = Stage::with(broker, |builder| builder.keep_alive_interval(KEEP_ALIVE)).await;
    let producer = named(&stage).await;
    stage.broker.faults().on(FaultEvent::Ping).always().drop_request();
    stage.broker.faults().on(FaultEvent::Send).times(1).drop_request();
    let started = Instant::now();
    send(&producer, "x").await;
    assert!(started.elapsed() <= 2 * KEEP_ALIVE + SLACK, "{:?}", started.elapsed());
    stage.broker.faults().clear();
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn invalid_bytes_end_the_connection_and_nothing_else() {
    let garbage: [&[u8]; 6] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        &[0xff; 64],
        &[0, 0, 0, 8, 0, 0, 0, 4, 8, 99, 0, 0],
        &[0, 0, 0, 6, 0, 0, 0, 2, 0xff, 0xff],
        &[0, 0, 0, 0, 0, 0, 0, 0],
        &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc],
    ];
    for bytes in garbage {
        let stage = Stage::deduplicating().await;
        let producer = named(&stage).await;
        let mut consumer = stage.consumer(TOPIC).await;
        confirmed(enqueue_numbers(&producer, 0..3).await).await;
        stage.broker.faults().send_bytes(bytes);
        confirmed(enqueue_numbers(&producer, 3..6).await).await;
        stage.broker.faults().on(FaultEvent::Send).times(3).respond_with(bytes.to_vec());
        confirmed(enqueue_numbers(&producer, 6..9).await).await;
        let seen = receive_up_to(&mut consumer, "8").await;
        assert_eq!(first_arrivals(&seen), numbers(0..9), "{bytes:?}");
        stage.drained(TOPIC).await;
        stage.close_and_check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_http_server_is_reported_as_such() {
    let (broker, net) = broker_on_net(EmbeddedBroker::builder()).await;
    broker.faults().on(FaultEvent::Connect).always().respond_with("HTTP/1.1 400 Bad Request\r\n\r\n");
    let started = Instant::now();
    let error = failed(within("the refusal", builder(&broker, &net).connect()).await, ErrorKind::Protocol);
    assert!(error.to_string().contains(&broker.address().to_string()), "names the address: {error}");
    assert!(error.to_string().contains("HTTP"), "says what it met: {error}");
    assert!(started.elapsed() <= TIMEOUT + SLACK, "{:?}", started.elapsed());
    stop_and_check(&broker).await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_handshake_is_waited_for_and_a_silent_one_is_not() {
    let stage = Stage::new().await;
    let producer = stage.producer(TOPIC).await;
    stage.broker.faults().on(FaultEvent::Connect).delay_response(Duration::from_secs(20));
    stage.broker.drop_connections();
    send(&producer, "after 20 s").await;
    assert_eq!(stage.net.dials(), 2);
    let net = stage.net.clone();
    stage.broker.faults().on(FaultEvent::Connect).always().drop_request();
    let started = Instant::now();
    let error = within("the failure", builder(&stage.broker, &net).connect()).await.expect_err("no CONNECTED");
    assert!(started.elapsed() <= TIMEOUT + Duration::from_secs(5), "{error}: {:?}", started.elapsed());
    stage.close_and_check().await;
}

/// A connection that fails is never handed out again, however often that happens.
#[tokio::test(start_paused = true)]
async fn connections_that_end_early_are_never_used_again() {
    let stage = Stage::deduplicating().await;
    let producer = named(&stage).await;
    let mut consumer = stage.consumer(TOPIC).await;
    for after in 0..12 {
        stage.broker.faults().on(FaultEvent::Any).after(after).disconnect();
    }
    confirmed(enqueue_numbers(&producer, 0..100).await).await;
    let seen = receive_up_to(&mut consumer, "99").await;
    assert_eq!(first_arrivals(&seen), numbers(0..100));
    stage.drained(TOPIC).await;
    stage.close_and_check().await;
}
