//! Partitions that are added at a real broker, in many steps.

use crate::broker::Real;
use crate::runner::Test;
use crate::suite::growth::{
    Load, assert_complete, has_parts, keys_go_where_every_client_sends_them, receiving, sends_to,
};
use crate::suite::target::Cluster;
use crate::suite::{Duration, created, drained, subscribed, within};

pub const TESTS: &[Test] =
    &[("growth::from_1_to_64_partitions_under_load", |real| Box::pin(from_1_to_64_partitions_under_load(real)))];

const KEYS: u32 = 50;

async fn from_1_to_64_partitions_under_load(real: Real) {
    let target = real.target();
    let topic = target.partitioned_topic("growing", 1).await;
    let client = target.client().await;
    let interval = Duration::from_secs(1);
    let consumer = subscribed(client.consumer(&topic, "s").auto_update_partitions_interval(interval)).await;
    let (mut states, acker) = (consumer.watch_state(), consumer.acker());
    let producer = created(client.producer(&topic).auto_update_partitions_interval(interval)).await;
    let load = Load::start(producer.clone(), KEYS);
    let received = receiving(consumer);
    for partitions in [2, 4, 8, 16, 32, 64] {
        within("partitions to be added", real.grow(&topic, partitions)).await;
        sends_to(&producer, partitions).await;
        has_parts(&mut states, partitions as usize).await;
        keys_go_where_every_client_sends_them(&producer, partitions, KEYS).await;
    }
    let numbers = load.stop().await;
    for partition in 0..64 {
        drained(&target, &format!("{topic}-partition-{partition}"), "s").await;
    }
    assert!(within("the drain", acker.drain(Duration::from_secs(10))).await.is_complete());
    let mut received = within("the consumer to end", received).await.expect("no panic");
    received.retain(|key, came| !key.starts_with("at-") || came.len() != 1);
    assert_complete(&received, KEYS, numbers);
    within("the close", client.close()).await.expect("closed");
}
