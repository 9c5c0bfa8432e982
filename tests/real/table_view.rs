//! A table view beside a compaction, which only a real broker does.

use serde_json::Value;

use crate::broker::Real;
use crate::runner::Test;
use crate::suite::table_views::{Updates, entries, refreshed, viewed};
use crate::suite::{created, until, within};

pub const TESTS: &[Test] =
    &[("table_view::equals_a_map_over_a_compaction", |real| Box::pin(equals_a_map_over_a_compaction(real)))];

/// A hundred thousand updates, a compaction and unloads in their midst.
async fn equals_a_map_over_a_compaction(real: Real) {
    let target = real.target();
    let topic = target.topic("compacted");
    let client = target.client().await;
    let producer = created(client.producer(&topic)).await;
    let mut updates = Updates::new(1000);
    updates.send(&producer, 10_000).await;
    let early = viewed(client.table_view(&topic)).await;
    for round in 0..9 {
        if round % 3 == 1 {
            within("the compaction", compact(&real, &topic)).await;
            let compacted = viewed(client.table_view(&topic)).await;
            assert_eq!(entries(&compacted.snapshot()), updates.map, "round {round}");
        }
        if round % 3 == 2 {
            let ((), ()) = tokio::join!(updates.send(&producer, 10_000), target.unload(&topic));
        } else {
            updates.send(&producer, 10_000).await;
        }
        assert_eq!(refreshed(&early).await, updates.map, "round {round}");
    }
    // What is left of the last messages may be nothing: all keys are removed, and that is compacted.
    updates.clear(&producer).await;
    within("the compaction", compact(&real, &topic)).await;
    assert_eq!(refreshed(&early).await, updates.map);
    let empty = viewed(client.table_view(&topic)).await;
    assert!(updates.map.is_empty() && empty.is_empty(), "{empty:?}");
    target.unload(&topic).await;
    updates.send(&producer, 100).await;
    for view in [&early, &empty] {
        assert_eq!(refreshed(view).await, updates.map);
    }
}

/// Has the topic compacted up to its present end.
async fn compact(real: &Real, topic: &str) {
    let admin = &real.admin;
    admin.change("PUT", topic, "/compaction", "").await;
    let status = || async { admin.read(topic, "/compaction").await };
    until("the compaction to end", status, |status: &Value| status["status"] == "SUCCESS").await;
}
