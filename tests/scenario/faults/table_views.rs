//! Table views: whatever happens on the way, they become the map that their messages make.

use super::support::*;
use crate::suite::table_views::{Updates, entries, refreshed, viewed};

/// Cuts, closes and refusals while a hundred thousand updates go through a topic.
#[tokio::test(start_paused = true)]
async fn it_equals_a_map_after_100_000_updates_over_reconnects() {
    let stage = Stage::deduplicating().await;
    let faults = stage.broker.faults();
    let producer = created(stage.client.producer(TOPIC).batching_max_messages(50)).await;
    let mut updates = Updates::new(2000);
    updates.send(&producer, 1000).await;
    let view = viewed(stage.client.table_view(TOPIC)).await;
    assert_eq!(entries(&view.snapshot()), updates.map);
    let dials = stage.net.dials();
    for round in 0..99 {
        match round % 6 {
            0 => faults.on(FaultEvent::Delivery).after(round % 17).disconnect(),
            1 => faults.on(FaultEvent::Delivery).after(round % 13).close(),
            2 => faults.on(FaultEvent::LastMessageId).disconnect(),
            3 => faults.on(FaultEvent::Subscribe).refuse_request(ServerCode::SERVICE_NOT_READY),
            4 => faults.on(FaultEvent::Ack).disconnect(),
            _ => faults.on(FaultEvent::Delivery).times(20).delay_response(Duration::from_millis(40)),
        }
        updates.send(&producer, 1000).await;
        assert_eq!(refreshed(&view).await, updates.map, "round {round}");
    }
    assert!(stage.net.dials() > dials + 40, "{} dials", stage.net.dials() - dials);
    let late = viewed(stage.client.table_view(TOPIC)).await;
    assert_eq!(entries(&late.snapshot()), updates.map);
    drop((view, late));
    stage.close_and_check().await;
}

/// A broker that does not say what its last message is.
#[tokio::test(start_paused = true)]
async fn a_refresh_that_is_refused_or_not_answered_says_so() {
    let stage = Stage::new().await;
    send(&stage.producer(TOPIC).await, Message::new("1").with_key("a")).await;
    let faults = stage.broker.faults();
    faults.on(FaultEvent::LastMessageId).refuse_request(ServerCode::METADATA_ERROR);
    failed(within("the refusal", stage.client.table_view(TOPIC).create()).await, ErrorKind::Server);
    until("it to be gone", || stage.attached(TOPIC), |attached| *attached == (0, 0)).await;

    let view = viewed(stage.client.table_view(TOPIC)).await;
    faults.on(FaultEvent::LastMessageId).refuse_request(ServerCode::METADATA_ERROR);
    failed(within("the refusal", view.refresh()).await, ErrorKind::Server);
    faults.on(FaultEvent::LastMessageId).drop_response();
    failed(within("the time-out", view.refresh()).await, ErrorKind::TimedOut);
    assert_eq!(refreshed(&view).await.len(), 1);
    // What was compacted away, or deleted, does not come: the refresh finds that out.
    stage.broker.delete_topic(TOPIC);
    within("the refresh", view.refresh()).await.expect("nothing to wait for");
    assert_eq!(view.get("a").as_deref(), Some(&b"1"[..]), "entries of a topic that is deleted stay");
    stage.close_and_check().await;
}

/// More calls than wait at the same time, for messages that come late, and for some that never come.
#[tokio::test(start_paused = true)]
async fn two_hundred_refreshes_end() {
    let stage = Stage::new().await;
    let producer = stage.producer(TOPIC).await;
    send(&producer, Message::new("1").with_key("a")).await;
    let view = viewed(stage.client.table_view(TOPIC)).await;
    let faults = stage.broker.faults();
    let refreshes = || {
        let mut refreshes = tokio::task::JoinSet::new();
        for _ in 0..200 {
            let view = view.clone();
            refreshes.spawn(async move { view.refresh().await });
        }
        refreshes
    };
    let all = async |refreshes: tokio::task::JoinSet<Result<(), Error>>| {
        for refreshed in within("all of them", refreshes.join_all()).await {
            refreshed.expect("current");
        }
    };

    faults.on(FaultEvent::Delivery).delay_response(Duration::from_secs(5));
    send(&producer, Message::new("2").with_key("a")).await;
    all(refreshes()).await;
    assert_eq!(view.get("a").as_deref(), Some(&b"2"[..]));

    // Deleted with its topic. Nothing arrives that wakes the view: the calls do.
    faults.on(FaultEvent::Delivery).delay_response(Duration::from_secs(60));
    send(&producer, Message::new("3").with_key("a")).await;
    let (waiting, given_up) = (refreshes(), refreshes());
    // They have asked again, for what they still wait for.
    pass(Duration::from_millis(2500)).await;
    drop(given_up);
    stage.broker.delete_topic(TOPIC);
    all(waiting).await;
    assert_eq!(view.get("a").as_deref(), Some(&b"2"[..]));
    drop(view);
    stage.close_and_check().await;
}
