//! A broker is killed and started again, as `scripts/real-cluster broker` does it. It runs alone.

use crate::Test;
use crate::environment::Environment;
use crate::suite::states::a_broker_is_killed;

pub const TESTS: &[Test] = &[("outage::a_broker_is_killed", |cluster| Box::pin(killed(cluster)))];

async fn killed(cluster: Environment) {
    let namespace = cluster.namespace("outage").await;
    let [topic, _] = cluster.topic_of_each(&namespace).await;
    let target = cluster.clone().at_broker(0).target();
    a_broker_is_killed(&target, &topic, || cluster.broker(0, "kill"), || cluster.broker(0, "start")).await;
}
