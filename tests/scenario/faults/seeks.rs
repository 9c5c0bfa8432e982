//! Seek: what lies before it is gone with the call, and it resolves once, after the consumer is attached again.

use super::support::*;

async fn ten(stage: &Stage) -> Consumer {
    let producer = stage.producer(TOPIC).await;
    confirmed(enqueue_numbers(&producer, 0..10).await).await;
    let mut consumer = stage.consumer(TOPIC).await;
    for number in 0..3 {
        assert_eq!(text(&mut consumer).await, number.to_string());
    }
    consumer
}

/// Neither what was queued nor what is still on its way comes afterwards.
#[tokio::test(start_paused = true)]
async fn nothing_from_before_a_seek_is_delivered_after_it() {
    let stage = Stage::new().await;
    let mut consumer = ten(&stage).await;
    // Old messages on their way: they arrive while the seek is being answered.
    let producer = stage.producer(TOPIC).await;
    stage.broker.faults().on(FaultEvent::Delivery).times(5).delay_response(Duration::from_millis(30));
    stage.broker.faults().on(FaultEvent::Seek).delay_response(Duration::from_millis(60));
    confirmed(enqueue_numbers(&producer, 10..15).await).await;
    within("the seek", consumer.seek(SeekTo::Latest)).await.expect("done");
    assert!(consumer.is_connected(), "it is attached again when the seek resolves");
    assert!(consumer.try_receive().expect("no error").is_none());
    send(&producer, "new").await;
    assert_eq!(text(&mut consumer).await, "new");
    within("the seek", consumer.seek(SeekTo::Earliest)).await.expect("done");
    for number in numbers(0..15) {
        assert_eq!(text(&mut consumer).await, number);
    }
    stage.close_and_check().await;
}

/// However it is disturbed, it resolves, and the consumer is at the position it was sent to.
#[tokio::test(start_paused = true)]
async fn a_disturbed_seek_resolves_once_with_its_real_result() {
    for disturbance in 0..6 {
        let stage = Stage::new().await;
        let mut consumer = ten(&stage).await;
        let faults = stage.broker.faults();
        match disturbance {
            0 => faults.on(FaultEvent::Seek).disconnect(),
            1 => faults.on(FaultEvent::Seek).delay_response(Duration::from_secs(3)),
            2 => faults.on(FaultEvent::Subscribe).times(3).refuse_request(ServerCode::SERVICE_NOT_READY),
            3 => faults.on(FaultEvent::Subscribe).times(2).disconnect(),
            4 => faults.on(FaultEvent::Subscribe).delay_response(Duration::from_secs(2)),
            _ => faults.on(FaultEvent::Seek).duplicate_response(),
        }
        within("the seek", consumer.seek(SeekTo::Earliest))
            .await
            .unwrap_or_else(|error| panic!("{disturbance}: {error}"));
        for number in numbers(0..10) {
            assert_eq!(text(&mut consumer).await, number, "{disturbance}");
        }
        stage.close_and_check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_seek_says_so_and_everything_comes_as_before() {
    let stage = Stage::new().await;
    let mut consumer = ten(&stage).await;
    stage.broker.faults().on(FaultEvent::Seek).refuse_request(ServerCode::METADATA_ERROR);
    failed(within("the refusal", consumer.seek(SeekTo::Latest)).await, ErrorKind::Server);
    let seen = receive_up_to(&mut consumer, "9").await;
    assert!(numbers(3..10).iter().all(|number| seen.contains(number)), "{seen:?}");
    stage.close_and_check().await;
}
