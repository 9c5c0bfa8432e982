//! The statistics of topics, and the topics of a namespace.

use super::*;
use pulsar_native::TopicStatistics;

/// The statistics of a topic without partitions, once `wanted` accepts them; `None` if the client has no REST interface.
async fn stats(
    target: &Target,
    client: &Client,
    topic: &str,
    wanted: impl Fn(&TopicStatistics) -> bool,
) -> Option<TopicStatistics> {
    if !target.is_http() {
        let error = within("an error", client.topic_stats(topic)).await.expect_err("no URL of a REST interface");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("ClientBuilder::admin_url"), "{error}");
        return None;
    }
    let look = || async {
        let mut stats = within("the statistics", client.topic_stats(topic)).await.expect("statistics");
        assert_eq!((stats.len(), stats[0].topic.as_str()), (1, topic));
        stats.remove(0)
    };
    Some(until("the statistics", look, wanted).await)
}

pub async fn backlog_and_consumers(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("statistics");
    let builder = client.consumer(&topic, "shared").subscription_type(SubscriptionType::Shared);
    let mut consumer = subscribed(builder.name("mine").receiver_queue_size(10)).await;
    let failover = client.consumer(&topic, "failover").subscription_type(SubscriptionType::Failover);
    let (first, second) = (subscribed(failover.clone().name("a")).await, subscribed(failover.name("b")).await);
    let producer = created(client.producer(&topic).batching(false)).await;
    send_all(&producer, ["one", "two", "three"]).await;
    send(&producer, Message::new("later").with_deliver_after(Duration::from_secs(3600))).await;
    let messages = receive_all(&mut consumer, 3).await;
    target.confirm(&consumer, &messages[0]).await;
    let wanted = |stats: &TopicStatistics| {
        let (shared, failover) = (&stats.subscriptions["shared"], &stats.subscriptions["failover"]);
        (shared.msg_backlog, shared.unacked_messages, shared.msg_delayed) == (3, 2, 1)
            && failover.msg_backlog == 4
            && failover.active_consumer_name.as_deref().is_some_and(|name| ["a", "b"].contains(&name))
    };
    let Some(stats) = stats(target, &client, &topic, wanted).await else { return };
    let (shared, failover) = (&stats.subscriptions["shared"], &stats.subscriptions["failover"]);
    assert_eq!(shared.subscription_type, Some(SubscriptionType::Shared));
    assert_eq!(failover.subscription_type, Some(SubscriptionType::Failover));
    assert_eq!((shared.active_consumer_name.as_deref(), shared.is_durable), (None, true));
    assert!(!shared.blocked_subscription_on_unacked_msgs, "{stats:?}");
    assert_eq!((shared.consumers.len(), failover.consumers.len()), (1, 2), "{stats:?}");
    let one = &shared.consumers[0];
    assert_eq!((one.consumer_name.as_str(), one.unacked_messages), ("mine", 2), "{stats:?}");
    assert!(one.available_permits > 0 && !one.blocked_consumer_on_unacked_msgs, "{stats:?}");
    assert_eq!((stats.msg_in_counter, stats.publishers), (4, vec![producer.name()]));
    drop((first, second));
}

pub async fn partitions_and_topics_of_a_namespace(target: &Target) {
    let client = target.client().await;
    let topic = target.partitioned_topic("statistics-of-each-part", 3).await;
    let partitions: Vec<_> = (0..3).map(|index| format!("{topic}-partition-{index}")).collect();
    let consumer = subscribed(client.consumer(&topic, "s")).await;
    let list = || async { within("the topics", client.topics_of_namespace("public/default")).await.expect("topics") };
    let has_all = |topics: &Vec<String>| partitions.iter().all(|partition| topics.contains(partition));
    let topics = until("all partitions", list, has_all).await;
    assert!(topics.is_sorted(), "{topics:?}");
    let missing = target.topic("statistics-of-nothing");
    if target.is_http() {
        let found = within("the statistics", client.topic_stats(&topic)).await.expect("statistics");
        assert_eq!(found.iter().map(|stats| &stats.topic).collect::<Vec<_>>(), partitions.iter().collect::<Vec<_>>());
        assert!(found.iter().all(|stats| stats.subscriptions["s"].consumers.len() == 1), "{found:?}");
        let one = within("the statistics", client.topic_stats(&partitions[1])).await.expect("statistics");
        assert_eq!((one.len(), &one[0].topic), (1, &partitions[1]));
        let error = within("an error", client.topic_stats(&missing)).await.expect_err("no such topic");
        assert_eq!((error.kind(), error.topic()), (ErrorKind::TopicNotFound, Some(missing.as_str())), "{error}");
        let token = Token::new(target.cluster().token(target::Role::Nobody));
        let nobody = target.builder_without_token().authentication(token).connect();
        let nobody = within("the connection", nobody).await.expect("a client");
        let error = within("a refusal", nobody.topic_stats(&partitions[0])).await.expect_err("no rights");
        assert_eq!(error.kind(), ErrorKind::Authorization, "{error}");
    }
    assert!(!list().await.contains(&missing), "a question creates nothing");
    for namespace in ["", "public", "public/", "/default", "a/b/c"] {
        let error = within("an error", client.topics_of_namespace(namespace)).await.expect_err("no namespace");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{namespace}: {error}");
    }
    drop(consumer);
}

pub async fn description_of_the_application(target: &Target) {
    let topic = target.topic("statistics-of-a-client");
    let plain = target.client().await;
    let described =
        within("the connection", target.builder().description("my~app/1.0").connect()).await.expect("a client");
    let longest =
        within("the connection", target.builder().description("x".repeat(64)).connect()).await.expect("a client");
    let mut consumers = Vec::new();
    for (client, name) in [(&plain, "a"), (&described, "b"), (&longest, "c")] {
        let builder = client.consumer(&topic, "s").subscription_type(SubscriptionType::Shared);
        consumers.push(subscribed(builder.name(name)).await);
    }
    for unusable in ["", " ", "my app", "a\nb", "caf\u{e9}", &"x".repeat(65)] {
        let error = target.builder().description(unusable).build().expect_err("no description");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{unusable}: {error}");
        assert!(error.to_string().starts_with("description must be"), "{error}");
    }
    let wanted = |stats: &TopicStatistics| stats.subscriptions["s"].consumers.len() == 3;
    let Some(stats) = stats(target, &plain, &topic, wanted).await else { return };
    let mut versions: Vec<_> =
        stats.subscriptions["s"].consumers.iter().map(|one| one.client_version.clone()).collect();
    versions.sort();
    let version = |description: &str| Some(format!("Pulsar-Rust-native-v{}{description}", env!("CARGO_PKG_VERSION")));
    assert_eq!(versions, [version(""), version("-my~app/1.0"), version(&format!("-{}", "x".repeat(64)))]);
}
