//! What each error code of the broker means: for a new producer or consumer, and for one that was attached before.

use super::support::*;

/// Every code that the protocol has, and two that it has not.
fn all() -> impl Iterator<Item = ServerCode> {
    (0..=25).chain([26, 9999]).map(ServerCode)
}

/// Codes that are over at once, for everybody.
const TERMINAL: [i32; 3] = [11, 15, 25];

/// Codes that are over for a new endpoint; one that was attached goes on trying.
const FATAL_WHEN_NEW: [i32; 13] = [3, 4, 5, 10, 12, 16, 17, 18, 19, 21, 22, 23, 24];

fn is_final(code: ServerCode, established: bool) -> bool {
    TERMINAL.contains(&code.0) || (!established && FATAL_WHEN_NEW.contains(&code.0))
}

/// Soon: no time-out is waited for.
const SOON: Duration = Duration::from_secs(2);

#[tokio::test(start_paused = true)]
async fn a_new_producer_or_consumer_is_retried_or_refused_at_once_by_its_code() {
    for code in all() {
        let stage = Stage::new().await;
        for event in [FaultEvent::Lookup, FaultEvent::Producer] {
            stage.broker.faults().on(event).refuse_request(code);
            let started = Instant::now();
            match within("an outcome", stage.client.producer(TOPIC).create()).await {
                Ok(_) => assert!(!is_final(code, false), "{event:?} {code:?} was retried"),
                Err(error) => {
                    assert!(is_final(code, false), "{event:?} {code:?}: {error}");
                    assert_eq!(error.kind(), code.kind(), "{error}");
                    assert_eq!(error.server_error().map(|server| server.code), Some(code), "{error}");
                    assert!(error.to_string().contains(TOPIC), "names the topic: {error}");
                }
            }
            assert!(started.elapsed() < SOON, "{event:?} {code:?}: {:?}", started.elapsed());
        }
        stage.broker.faults().on(FaultEvent::Subscribe).refuse_request(code);
        let started = Instant::now();
        let subscribed = within("an outcome", stage.client.consumer(TOPIC, "s").subscribe()).await;
        assert_eq!(subscribed.is_err(), is_final(code, false), "SUBSCRIBE {code:?}");
        assert!(started.elapsed() < SOON, "SUBSCRIBE {code:?}: {:?}", started.elapsed());
        drop(subscribed);
        assert_eq!(stage.net.dials(), 1, "{code:?} is about that one");
        stage.close_and_check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_established_producer_retries_or_fails_all_that_waits_by_the_code() {
    for code in all() {
        let stage = Stage::new().await;
        let builder = stage.client.producer(TOPIC).batching(false).max_pending_messages(3);
        let producer = created(builder).await;
        stage.broker.faults().on(FaultEvent::Producer).times(2).refuse_request(code);
        stage.broker.faults().on(FaultEvent::Send).times(3).drop_request();
        let pending = enqueue_numbers(&producer, 0..3).await;
        let waiting = producer.clone();
        let no_room = spawn(async move { waiting.send("3").await });
        struck(&stage.broker, 3).await;
        let started = Instant::now();
        stage.broker.unload(TOPIC);
        let mut failures = 0;
        for one in pending {
            if let Err(error) = within("an outcome", one).await {
                assert_eq!(error.error().kind(), code.kind(), "{error}");
                assert!(error.may_be_stored(), "its bytes went out: {error}");
                failures += 1;
            }
        }
        if let Err(error) = within("an outcome", no_room).await.expect("no panic") {
            assert!(!error.may_be_stored(), "it never left: {error}");
            failures += 1;
        }
        // This one does not end the producer, and fails what is pending all the same; what waited for capacity is sent.
        let is_quota = code == ServerCode::PRODUCER_BLOCKED_QUOTA_EXCEEDED_EXCEPTION;
        let expected = if is_final(code, true) {
            4..=4
        } else if is_quota {
            3..=4
        } else {
            0..=0
        };
        assert!(expected.contains(&failures), "{code:?}: {failures}");
        assert!(started.elapsed() < SOON, "{code:?}: {:?}", started.elapsed());
        if is_final(code, true) {
            let error = within("the refusal", producer.send("too late")).await.expect_err("over");
            assert_eq!(error.error().kind(), code.kind(), "{error}");
        }
        stage.close_and_check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_established_consumer_retries_or_ends_by_the_code() {
    for code in all() {
        let stage = Stage::new().await;
        let mut consumer = stage.consumer(TOPIC).await;
        let producer = stage.producer(TOPIC).await;
        stage.broker.faults().on(FaultEvent::Subscribe).times(2).refuse_request(code);
        stage.broker.faults().close_consumers(TOPIC, None);
        let started = Instant::now();
        send(&producer, "x").await;
        match within("a message or the end", consumer.receive()).await {
            Ok(_) => assert!(!is_final(code, true), "{code:?}"),
            Err(error) => {
                assert!(is_final(code, true), "{code:?}: {error}");
                assert_eq!(error.kind(), code.kind(), "{error}");
                // It stays said.
                failed(within("the end", consumer.receive()).await, code.kind());
            }
        }
        assert!(started.elapsed() < SOON, "{code:?}: {:?}", started.elapsed());
        stage.close_and_check().await;
    }
}

/// A deleted topic that is not made anew ends its producers and consumers at once.
#[tokio::test(start_paused = true)]
async fn a_deleted_topic_that_is_not_created_again_ends_the_consumer() {
    let broker = EmbeddedBroker::builder().allow_auto_topic_creation(false).partitioned_topic("gone", 1);
    let stage = Stage::with(broker, |builder| builder).await;
    let producer = stage.producer("gone-partition-0").await;
    let mut consumer = stage.consumer("gone-partition-0").await;
    stage.broker.faults().on(FaultEvent::Send).drop_request();
    let pending = enqueue(&producer, "x").await;
    struck(&stage.broker, 1).await;
    let started = Instant::now();
    stage.broker.delete_topic("gone");
    let error = within("the failure", pending).await.expect_err("no topic");
    assert_eq!(error.error().kind(), ErrorKind::TopicNotFound, "{error}");
    failed(within("the end", consumer.receive()).await, ErrorKind::TopicNotFound);
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    stage.close_and_check().await;
}
