//! Many topics under a pattern at a real broker.

use std::collections::BTreeSet;

use pulsar_native::{Client, Consumer, Topics};
use tokio::task::JoinSet;

use crate::broker::Real;
use crate::runner::Test;
use crate::suite::target::Cluster;
use crate::suite::{
    Duration, InitialPosition, Instant, SubscriptionType, created, receive, send_all, subscribed, until, within,
};

pub const TESTS: &[Test] = &[
    ("patterns::a_hundred_topics_come_and_go", |real| Box::pin(a_hundred_topics_come_and_go(real))),
    ("patterns::of_a_namespace_with_a_long_name", |real| Box::pin(of_a_namespace_with_a_long_name(real))),
];

/// So many topics are made at a time that a broker answers others late.
pub const ALONE: &[Test] = &[("patterns::a_thousand_topics_wait_within_the_memory_limit", |real| {
    Box::pin(a_thousand_topics_wait_within_the_memory_limit(real))
})];

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
    come_and_go(&real, "public/default", 100, Duration::from_secs(600), Duration::from_secs(2)).await;
}

/// No pattern of such a namespace is short enough for a broker: the list is asked for.
async fn of_a_namespace_with_a_long_name(real: Real) {
    let namespace = "public/a-namespace-whose-name-is-longer-than-any-pattern";
    real.admin.make_namespace(namespace).await;
    let period = Duration::from_secs(1);
    come_and_go(&real, namespace, 20, period, 2 * period).await;
}

const TOPICS: usize = 1000;
const TOPICS_U64: u64 = TOPICS as u64;
/// Of each topic.
const ENTRIES: usize = 10;
const ENTRY_BYTES: usize = 4096;
/// Metadata of an entry, and what its frame adds.
const HEADERS_MAX: usize = 200;
/// Topics that are made, or asked about, at a time.
const AT_A_TIME: usize = 16;

/// Runs one future for each topic, some at a time.
async fn for_each<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    topics: &[String],
    run: impl Fn(String) -> F,
) -> Vec<T> {
    let (mut running, mut results) = (JoinSet::new(), Vec::with_capacity(topics.len()));
    for topic in topics {
        while running.len() >= AT_A_TIME {
            results.extend(running.join_next().await.map(|result| result.expect("no panic")));
        }
        running.spawn(run(topic.clone()));
    }
    results.extend(running.join_all().await);
    results
}

async fn fill(client: &Client, topics: &[String]) {
    let fill_one = |topic: String| {
        let client = client.clone();
        async move {
            let producer = created(client.producer(topic).batching(false)).await;
            send_all(&producer, (0..ENTRIES).map(|_| vec![7; ENTRY_BYTES])).await;
            within("the close", producer.close()).await.expect("closed");
        }
    };
    for_each(topics, fill_one).await;
}

/// Of a thousand topics, half of which come later, no more waits than the limit and the least permit of each: the broker's
/// counts agree. Then all of it is received.
async fn a_thousand_topics_wait_within_the_memory_limit(real: Real) {
    const LIMIT: usize = 9 << 20;
    // Others list the namespace of theirs.
    let namespace = "public/thousand";
    real.admin.make_namespace(namespace).await;
    let unique = real.target().topic("wait");
    let prefix = format!("persistent://{namespace}/{}", unique.rsplit('/').next().expect("a local name"));
    let topics: Vec<_> = (0..TOPICS).map(|number| format!("{prefix}-{number:03}")).collect();
    let producing = real.target().client().await;
    fill(&producing, &topics[..TOPICS / 2]).await;
    let builder = real.target().builder().receive_memory_limit(LIMIT);
    let client = within("the connection", builder.connect()).await.expect("a client");
    let builder = client.consumer(Topics::pattern(format!("{prefix}-.*")), "s");
    let builder = builder.initial_position(InitialPosition::Earliest).subscription_type(SubscriptionType::Shared);
    let mut consumer = subscribed(builder).await;
    fill(&producing, &topics[TOPICS / 2..]).await;
    let look = || async {
        let (state, stats) = (consumer.state(), consumer.stats());
        (state.parts.len(), state.is_attached(), stats.available_permits, stats.received_entries)
    };
    let is_at_rest = |seen: &_| matches!(seen, (TOPICS, true, 0, TOPICS_U64..));
    until("each topic to have used its permits", look, is_at_rest).await;

    let stats = consumer.stats();
    let (bytes, least) = (stats.received_bytes as usize, TOPICS * (ENTRY_BYTES + HEADERS_MAX));
    assert!(bytes >= LIMIT / 2, "{bytes} bytes wait with a limit of {LIMIT}");
    assert!(bytes <= LIMIT + least, "{bytes} bytes wait with a limit of {LIMIT}");
    let views = for_each(&topics, |topic| {
        let real = real.clone();
        async move { within("statistics", real.admin.stats(&topic)).await.expect("a topic") }
    });
    let (mut permits, mut unacked, mut backlog) = (0, 0, 0);
    for mut view in views.await {
        let subscription = view.subscriptions.remove("s").expect("the subscription");
        permits += subscription.consumers.iter().map(|consumer| consumer.permits).sum::<i64>();
        unacked += subscription.unacked;
        backlog += subscription.backlog;
    }
    assert_eq!((permits, unacked), (0, stats.received_entries), "as the broker counts");
    assert_eq!(backlog, (TOPICS * ENTRIES) as u64, "nothing is acknowledged");

    for _ in 0..TOPICS * ENTRIES {
        let message = receive(&mut consumer).await;
        consumer.ack(&message).expect("acknowledged");
    }
    assert!(consumer.try_receive().expect("not ended").is_none(), "each once");
    within("the close", client.close()).await.expect("closed");
}
