//! Many topics under a pattern at a real broker.

use std::collections::BTreeSet;

use pulsar_native::{Consumer, Topics};

use crate::broker::Real;
use crate::runner::Test;
use crate::suite::target::Cluster;
use crate::suite::{Duration, Instant, subscribed, until, within};

pub const TESTS: &[Test] = &[
    ("patterns::a_hundred_topics_come_and_go", |real| Box::pin(a_hundred_topics_come_and_go(real))),
    ("patterns::of_a_namespace_with_a_long_name", |real| Box::pin(of_a_namespace_with_a_long_name(real))),
];

/// Waits until the consumer has these topics, and says for how long.
async fn has(consumer: &Consumer, topics: &BTreeSet<String>) -> Duration {
    let started = Instant::now();
    let look = || async { consumer.state().parts.iter().map(|part| part.topic.to_string()).collect::<BTreeSet<_>>() };
    until("the topics of the broker", look, |seen| seen == topics).await;
    started.elapsed()
}

/// Makes topics of a namespace, and deletes some: the consumer follows within `limit`, and makes none again.
async fn come_and_go(real: &Real, namespace: &str, count: usize, period: Duration, limit: Duration) {
    let client = real.target().client().await;
    let unique = real.target().topic("many");
    let prefix = format!("persistent://{namespace}/{}", unique.rsplit('/').next().expect("a local name"));
    let mut topics: BTreeSet<_> = (0..count / 2).map(|number| format!("{prefix}-{number:03}")).collect();
    for topic in &topics {
        within("a topic", real.create(topic)).await;
    }
    let pattern = Topics::pattern(format!("{prefix}-.*"));
    let consumer = subscribed(client.consumer(pattern, "s").pattern_auto_discovery_period(period)).await;
    has(&consumer, &topics).await;
    for number in count / 2..count {
        let topic = format!("{prefix}-{number:03}");
        within("a topic", real.create(&topic)).await;
        topics.insert(topic);
    }
    let took = has(&consumer, &topics).await;
    assert!(took < limit, "those that came were found within {took:?}");
    let is_gone = |topic: &String| topic.ends_with('0') || topic.ends_with('5');
    let (gone, left): (BTreeSet<_>, BTreeSet<_>) = topics.into_iter().partition(is_gone);
    for topic in &gone {
        within("the deletion", real.delete(topic)).await;
    }
    let took = has(&consumer, &left).await;
    assert!(took < limit, "those that went were noticed within {took:?}");
    // As long as anything is tried again.
    within("the list", client.topics_of_namespace(namespace)).await.expect("the topics");
    for topic in &gone {
        assert_eq!(within("statistics", real.stats(topic)).await, None, "{topic} came back");
    }
    within("the close", client.close()).await.expect("closed");
}

async fn a_hundred_topics_come_and_go(real: Real) {
    come_and_go(&real, "public/default", 100, Duration::from_secs(60), Duration::from_secs(2)).await;
}

/// No pattern of such a namespace is short enough for a broker: the list is asked for.
async fn of_a_namespace_with_a_long_name(real: Real) {
    let namespace = "public/a-namespace-whose-name-is-longer-than-any-pattern";
    real.admin.make_namespace(namespace).await;
    let period = Duration::from_secs(1);
    come_and_go(&real, namespace, 20, period, 2 * period).await;
}
