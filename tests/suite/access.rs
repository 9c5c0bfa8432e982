//! Producers that want the topic for themselves.

use super::target::Offer;
use super::*;
use pulsar_native::AccessMode;

/// A broker that does not know the mode is found out: no producer is created, and the mode is named. False if it is one.
async fn is_offered(target: &Target, client: &Client, offer: Offer, mode: AccessMode) -> bool {
    if target.offers(offer) {
        return true;
    }
    let topic = target.topic("access-old");
    let error = within("the refusal", client.producer(&topic).access_mode(mode).create()).await;
    let error = error.expect_err("an old broker would open a shared producer");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let line = error.to_string();
    assert!(line.contains("access_mode") && line.contains(&topic), "names the option and the topic: {line}");
    until("no producer to be left", || target.stats(&topic), |seen| seen.publishers.is_empty()).await;
    false
}

async fn create(client: &Client, topic: &str, mode: AccessMode) -> Producer {
    created(client.producer(topic).access_mode(mode)).await
}

pub async fn exclusive_keeps_others_out(target: &Target) {
    let (client, other) = (target.client().await, target.client().await);
    if !is_offered(target, &client, Offer::AccessModes, AccessMode::Exclusive).await {
        return;
    }
    let topic = target.topic("access-exclusive");
    let only = create(&client, &topic, AccessMode::Exclusive).await;
    send(&only, "alone").await;
    for (mode, kind) in [(AccessMode::Exclusive, ErrorKind::Fenced), (AccessMode::Shared, ErrorKind::Busy)] {
        let builder = other.producer(&topic).access_mode(mode);
        let error = within("the refusal", builder.create()).await.expect_err("the topic is taken");
        assert_eq!(error.kind(), kind, "{mode:?}: {error}");
        assert!(error.to_string().contains(&topic), "names the topic: {error}");
    }
    within("the close", only.close()).await.expect("closed");
    send(&create(&other, &topic, AccessMode::Exclusive).await, "the next").await;
}

pub async fn waiting_ends_when_the_topic_is_free(target: &Target) {
    // Longer than the wait: an operation timeout does not apply to it.
    let client = within("a client", target.builder().operation_timeout(Duration::from_secs(1)).connect()).await;
    let client = client.expect("a client");
    if !is_offered(target, &client, Offer::AccessModes, AccessMode::WaitForExclusive).await {
        return;
    }
    let topic = target.topic("access-wait");
    // Of another client: on a busy machine a second may not do for what is not waited for.
    let first = create(&target.client().await, &topic, AccessMode::Exclusive).await;
    let builder = client.producer(&topic).access_mode(AccessMode::WaitForExclusive);
    let mut waiting = tokio::spawn(builder.create());
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(2) {
        send(&first, "still mine").await;
        let turn = tokio::time::timeout(Duration::from_millis(100), &mut waiting).await;
        assert!(turn.is_err(), "the topic is not free");
    }
    within("the close", first.close()).await.expect("closed");
    let second = within("its turn", waiting).await.expect("no panic").expect("a producer");
    send(&second, "mine now").await;
}

pub async fn fencing_throws_the_others_out(target: &Target) {
    let (client, other) = (target.client().await, target.client().await);
    if !is_offered(target, &client, Offer::Fencing, AccessMode::ExclusiveWithFencing).await {
        return;
    }
    let topic = target.topic("access-fencing");
    let first = create(&client, &topic, AccessMode::Exclusive).await;
    send(&first, "before").await;
    let second = create(&other, &topic, AccessMode::ExclusiveWithFencing).await;
    send(&second, "mine now").await;
    let failed = within("the refusal", first.send("too late")).await.expect_err("fenced out");
    assert_eq!(failed.error().kind(), ErrorKind::Fenced, "{failed}");
    send(&second, "still mine").await;
}
