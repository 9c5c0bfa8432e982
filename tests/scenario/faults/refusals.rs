//! Refusals that depend on the state of things: quotas, names that are taken, and what time-outs say of them.

use super::support::*;

#[tokio::test(start_paused = true)]
async fn a_quota_exception_fails_what_is_pending_and_a_quota_error_holds_it() {
    for (code, fails) in [
        (ServerCode::PRODUCER_BLOCKED_QUOTA_EXCEEDED_EXCEPTION, true),
        (ServerCode::PRODUCER_BLOCKED_QUOTA_EXCEEDED_ERROR, false),
    ] {
        let stage = Stage::new().await;
        let producer = stage.producer(TOPIC).await;
        stage.broker.faults().on(FaultEvent::Producer).times(4).refuse_request(code);
        stage.broker.faults().on(FaultEvent::Send).times(2).drop_request();
        let written = enqueue_numbers(&producer, 0..2).await;
        struck(&stage.broker, 2).await;
        let begun = Instant::now();
        stage.broker.unload(TOPIC);
        let held = enqueue(&producer, "while refused").await;
        for one in written {
            let outcome = within("an outcome", one).await;
            assert_eq!(outcome.is_err(), fails, "{code:?}");
            if let Err(error) = outcome {
                assert_eq!(error.error().kind(), ErrorKind::BacklogQuotaExceeded, "{error}");
                assert!(error.may_be_stored(), "its bytes went out: {error}");
                assert!(begun.elapsed() < Duration::from_secs(1), "at once, not at the send timeout");
            }
        }
        if fails {
            within("an outcome", held).await.expect_err("it was pending too");
            let state = producer.connection_error().expect("it is not attached");
            assert_eq!(state.kind(), ErrorKind::BacklogQuotaExceeded, "{state}");
        } else {
            within("a receipt", held).await.expect("held until the quota allows it");
        }
        // Attempts go on, and the fifth is not refused.
        until("the attach", || producer.is_connected(), |connected| *connected).await;
        send(&producer, "after the quota").await;
        assert!(producer.connection_error().is_none(), "it is attached");
        stage.close_and_check().await;
    }
}

/// As after a restart without state: by the time a producer is back, one of another client has its name.
async fn take_name(stage: &Stage, topic: &str, name: &str) -> (Client, Producer) {
    let refused = stage.broker.faults().on(FaultEvent::Producer).on_topic(topic).times(2);
    refused.refuse_request(ServerCode::SERVICE_NOT_READY);
    stage.broker.unload(topic);
    struck(&stage.broker, 1).await;
    let other = builder(&stage.broker, &stage.net).connect();
    let other = within("the connection", other).await.expect("a client");
    stage.broker.faults().clear();
    let taken = within("the name", other.producer(topic).name(name).create()).await.expect("the name is free");
    (other, taken)
}

#[tokio::test(start_paused = true)]
async fn a_generated_name_that_was_taken_is_replaced() {
    let stage = Stage::new().await;
    let producer = stage.producer(TOPIC).await;
    send(&producer, "before").await;
    let name = producer.name();
    let (other, _taken) = take_name(&stage, TOPIC, &name).await;
    let in_flight = enqueue(&producer, "under the old name").await;
    let error = within("an outcome", in_flight).await.expect_err("given up with the name");
    assert_eq!(error.error().kind(), ErrorKind::Busy, "{error}");
    assert!(!error.may_be_stored(), "it was never written: {error}");
    send(&producer, "under a new name").await;
    assert_ne!(producer.name(), name);
    within("the close", other.close()).await.expect("closed");
    assert_eq!(stage.stored(TOPIC).await, ["before", "under a new name"]);
    stage.close_and_check().await;
}

/// All partitions begin with the name that the first one was given. Each gives it up by itself.
#[tokio::test(start_paused = true)]
async fn a_partition_whose_generated_name_was_taken_gets_another() {
    let broker = EmbeddedBroker::builder().partitioned_topic("parts", 2);
    let stage = Stage::with(broker, |builder| builder).await;
    let producer = stage.producer("parts").await;
    let name = producer.name();
    let partition = "persistent://public/default/parts-partition-1";
    let (other, _taken) = take_name(&stage, partition, &name).await;
    until("the attach", || producer.is_connected(), |connected| *connected).await;
    for key in 0..4 {
        send(&producer, Message::new("x").with_key(key.to_string())).await;
    }
    assert_eq!(producer.name(), name, "the first partition keeps it");
    within("the close", other.close()).await.expect("closed");
    stage.close_and_check().await;
}

/// The first producer still waits for a receipt when the second of the same name is created.
#[tokio::test(start_paused = true)]
async fn a_name_is_waited_for_while_this_client_closes_its_last_holder() {
    let stage = Stage::new().await;
    let named = || stage.client.producer(TOPIC).name("only-one").batching(false).create();
    let first = within("a producer", named()).await.expect("a producer");
    let error = within("the refusal", named()).await.expect_err("the first is alive");
    assert_eq!(error.kind(), ErrorKind::Busy, "at once: {error}");
    stage.broker.faults().on(FaultEvent::Send).delay_response(Duration::from_secs(3));
    let pending = enqueue(&first, "on its way").await;
    struck(&stage.broker, 1).await;
    drop(first);
    let second = within("a producer", named()).await.expect("it waits its turn");
    within("a receipt", pending).await.expect("sent before the close");
    send(&second, "second").await;
    assert_eq!(stage.stored(TOPIC).await, ["on its way", "second"]);
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn time_outs_say_why() {
    let stage = Stage::new().await;
    let producer = stage.producer(TOPIC).await;
    let address = stage.broker.address().to_string();

    stage.broker.faults().on(FaultEvent::Send).times(1).drop_request();
    let error = within("the send timeout", producer.send("no receipt")).await.expect_err("no receipt");
    let text = error.error().to_string();
    assert!(text.contains("no receipt came") && text.contains(&format!("attached to {address}")), "{text}");

    let code = ServerCode::AUTHORIZATION_ERROR;
    stage.broker.faults().on(FaultEvent::Producer).times(1000).refuse_request(code);
    stage.broker.unload(TOPIC);
    let error = within("the send timeout", producer.send("refused")).await.expect_err("no attach");
    let text = error.error().to_string();
    assert!(text.contains("the message was not sent") && text.contains(code.name()), "{text}");
    let state = producer.connection_error().expect("it is not attached");
    assert_eq!(state.server_error().map(|refused| refused.code), Some(code), "{state}");
    stage.broker.faults().clear();

    stage.net.refuse(true);
    stage.broker.faults().disconnect_after_bytes_sent(0);
    let error = within("the send timeout", producer.send("unreachable")).await.expect_err("no broker");
    let text = error.error().to_string();
    assert!(text.contains(&address) && text.contains("refused"), "{text}");
    stage.net.refuse(false);
    stage.close_and_check().await;
}
