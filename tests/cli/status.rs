//! `status`: what the REST interface tells of topics.

use pulsar_native::{Consumer, Message, SubscriptionType};
use serde_json::Value;

use super::*;

const KEY: &str = "a secret of at least 32 bytes, for HS256";

struct Stage {
    broker: EmbeddedBroker,
    /// Kept connected.
    _consumers: Vec<Consumer>,
    _client: Client,
}

/// `orders` with a Shared subscription that has 4 entries, of which one is delayed, two are
/// unacknowledged and one would be too many of these, and a Failover
/// one; `idle` without subscriptions; `parts` with two partitions.
async fn stage() -> Stage {
    let builder = EmbeddedBroker::builder().http(true).token_secret_key(KEY).partitioned_topic("parts", 2);
    let builder = builder.max_unacked_messages_per_consumer(2).active_consumer_failover_delay_time(Duration::ZERO);
    let broker = builder.start().await.expect("a broker");
    let token = pulsar_native::Token::new(broker.token("admin"));
    let client = Client::builder(broker.url()).authentication(token).connect().await.expect("a client");
    let mut consumers = Vec::new();
    for (topic, name, subscription, kind) in [
        ("orders", "b", "billing", SubscriptionType::Shared),
        ("orders", "a1", "audit", SubscriptionType::Failover),
        ("orders", "a2", "audit", SubscriptionType::Failover),
        ("parts", "p", "s", SubscriptionType::KeyShared),
    ] {
        let builder = client.consumer(topic, subscription).subscription_type(kind).name(name);
        consumers.push(builder.subscribe().await.expect("a consumer"));
    }
    let _idle = client.producer("idle").create().await.expect("a producer");
    let producer = client.producer("orders").batching(false).create().await.expect("a producer");
    let later = Message::new("later").with_deliver_after(Duration::from_secs(3600));
    producer.send(later).await.expect("stored");
    for text in ["one", "two", "three"] {
        producer.send(text).await.expect("stored");
    }
    for _ in 0..2 {
        consumers[0].receive().await.expect("a message");
    }
    Stage { broker, _consumers: consumers, _client: client }
}

impl Stage {
    /// The output of `status`, with the token of a role.
    async fn run(&self, words: &str, role: &str) -> Output {
        end(start_with_token(&format!("status {words}"), Stdio::piped(), Some(&self.broker.token(role)))).await
    }

    async fn lines(&self, words: &str) -> Vec<Vec<String>> {
        let output = self.run(words, "admin").await;
        assert_quiet_success(&output);
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        text.lines()
            .map(|line| line.split("  ").map(str::trim).filter(|c| !c.is_empty()).map(str::to_owned).collect())
            .collect()
    }

    fn http(&self) -> String {
        self.broker.http_url().expect("a REST interface")
    }
}

fn row(cells: &str) -> Vec<String> {
    cells.split('|').map(str::to_owned).collect()
}

#[tokio::test]
async fn status_is_a_table_of_subscriptions() {
    let stage = stage().await;
    let (http, url) = (stage.http(), stage.broker.url());
    let stats = stage.broker.stats("orders").expect("it is there");
    let active = &stats.subscriptions["audit"].active_consumer_name;
    assert!(["a1", "a2"].contains(&active.as_str()), "{stats:?}");
    let name = |local: &str| format!("persistent://public/default/{local}");
    let header = row("TOPIC|SUBSCRIPTION|TYPE|BACKLOG|UNACKED|DELAYED|CONSUMERS|ACTIVE|BLOCKED");
    let orders = [
        row(&format!("{}|audit|Failover|4|UNACKED|0|2|{active}|no", name("orders"))),
        row(&format!("{}|billing|Shared|4|2|1|1|-|1 consumer", name("orders"))),
    ];
    let idle = row(&format!("{}|-|-|-|-|-|-|-|-", name("idle")));
    let part = |index| row(&format!("{}-partition-{index}|s|Key_Shared|0|0|0|1|-|no", name("parts")));
    let of_orders = [vec![header.clone()], orders.to_vec()].concat();
    let of_parts = vec![header.clone(), part(0), part(1)];
    let all = [vec![header.clone(), idle.clone()], orders.to_vec(), vec![part(0), part(1)]].concat();
    for (words, expected) in [
        (format!("{http} orders"), &of_orders),
        (format!("{http} {}", name("orders")), &of_orders),
        (format!("{url} orders --admin-url {http}"), &of_orders),
        (format!("{http} parts"), &of_parts),
        (format!("{http} {}-partition-1", name("parts")), &vec![header.clone(), part(1)]),
        (format!("{http} public/default"), &all),
        (http.clone(), &all),
        (format!("{url} --admin-url {http}"), &all),
    ] {
        let mut lines = stage.lines(&words).await;
        // Of a Failover subscription a broker may count them, or not.
        for line in lines.iter_mut().filter(|line| line.get(1).is_some_and(|name| name == "audit")) {
            line[4] = "UNACKED".to_owned();
        }
        assert_eq!(lines, *expected, "{words}");
    }
}

#[tokio::test]
async fn status_tells_consumers_when_verbose_and_everything_as_json() {
    let stage = stage().await;
    let http = stage.http();
    let lines = stage.lines(&format!("{http} orders -v")).await.concat();
    let line = lines.iter().find(|line| line.starts_with("consumer b: ")).expect("a consumer");
    assert!(line.starts_with("consumer b: 2 unacked, ") && line.contains(", blocked"), "{line}");
    let output = stage.run(&format!("{http} orders --json"), "admin").await;
    assert_quiet_success(&output);
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json[0]["topic"], "persistent://public/default/orders");
    assert_eq!(json[0]["msgInCounter"], 4);
    let billing = &json[0]["subscriptions"]["billing"];
    assert_eq!(
        (&billing["type"], &billing["msgBacklog"], &billing["msgDelayed"]),
        (&"Shared".into(), &4.into(), &1.into())
    );
    let consumer = &billing["consumers"][0];
    assert_eq!((&consumer["consumerName"], &consumer["unackedMessages"]), (&"b".into(), &2.into()), "{json:#}");
    assert_eq!(consumer["blockedConsumerOnUnackedMsgs"], true);
}

#[tokio::test]
async fn status_says_why_it_cannot_tell() {
    let stage = stage().await;
    let (http, url) = (stage.http(), stage.broker.url());
    for (code, role, words, why) in [
        (2, "admin", url.clone(), "--admin-url"),
        (2, "admin", format!("{http} persistent://a"), "invalid topic name"),
        (2, "admin", format!("{http} --admin-url {url}"), "has to be http:// or https://"),
        (1, "admin", format!("{http} no-such-topic"), "TopicNotFound"),
        (1, "admin", format!("{http} no/such"), "Namespace"),
        (1, "nobody", format!("{http} orders"), "Unauthorized"),
        (1, "nobody", http.clone(), "Unauthorized"),
    ] {
        let output = stage.run(&words, role).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && stderr.contains(why), "{words}: {}: {stderr}", output.status);
        assert!(output.stdout.is_empty(), "{words}");
    }
    assert!(stage.broker.stats("no-such-topic").is_none(), "a question creates nothing");
}
