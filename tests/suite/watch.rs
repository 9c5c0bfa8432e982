//! The topics of a namespace, kept current by the broker.

use pulsar_native::client::{TopicChange, TopicListWatch};

use super::target::Offer;
use super::*;

/// Takes changes until this topic was reported, and says how.
async fn change_of(watch: &mut TopicListWatch, wanted: &str) -> TopicChange {
    loop {
        let changes = within("a change", watch.changes()).await.expect("the watcher lives");
        if let Some((_, change)) = changes.into_iter().find(|(topic, _)| topic == wanted) {
            return change;
        }
    }
}

pub async fn topics_that_come_are_reported(target: &Target) {
    let client = target.client().await;
    let (before, after) = (target.topic("seen"), target.topic("seen-later"));
    let first = created(client.producer(&before)).await;
    let (namespace, _) = before.rsplit_once('/').expect("a full name");
    let (pattern, namespace) = (format!("{namespace}/.*"), namespace.trim_start_matches("persistent://"));
    let watch = within("the watcher", client.watch_topics(namespace, pattern)).await;
    if !target.offers(Offer::TopicListWatchers) {
        let error = watch.expect_err("no watcher");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("topic list watchers"), "names the feature: {error}");
        return;
    }
    let mut watch = watch.expect("a watcher");
    assert_eq!(change_of(&mut watch, &before).await, TopicChange::Added, "the first list");
    let second = created(client.producer(&after)).await;
    assert_eq!(change_of(&mut watch, &after).await, TopicChange::Added, "an update");
    drop((first, second));
    within("the close", watch.close()).await.expect("closed");
}
