//! Two clusters that replicate to each other: what comes from the other one says so, each message goes where its sender wants
//! it, and the markers of replicated subscriptions come to no consumer.

use serde_json::Value;

use super::*;
use pulsar_native::{Message, ReceivedMessage};

/// Their names, as `scripts/real-failover` gives them.
const NAMES: [&str; 2] = ["standalone", "second"];

/// A namespace of both clusters that each replicates to the other, in a tenant of its own.
pub async fn replicated_namespace(both: &[Real; 2], tenant: &str) -> String {
    let namespace = format!("{tenant}-{}/n", std::process::id());
    let (tenant, _) = namespace.split_once('/').expect("a tenant");
    let [first, second] = both;
    for (here, there, name) in [(first, second, NAMES[1]), (second, first, NAMES[0])] {
        let known: Vec<String> =
            serde_json::from_str(&here.admin("GET", "/admin/v2/clusters", "").await).expect("names");
        if !known.iter().any(|known| known == name) {
            let other = format!(r#"{{"serviceUrl":"{}","brokerServiceUrl":"{}"}}"#, there.admin, there.url);
            here.admin("PUT", &format!("/admin/v2/clusters/{name}"), &other).await;
        }
        let of_both = r#"{"adminRoles":[],"allowedClusters":["standalone","second"]}"#;
        here.admin("PUT", &format!("/admin/v2/tenants/{tenant}"), of_both).await;
        let of_both = r#"{"replication_clusters":["standalone","second"]}"#;
        here.admin("PUT", &format!("/admin/v2/namespaces/{namespace}"), of_both).await;
    }
    namespace
}

/// What a broker says of a topic; null where it has none of this name.
async fn ask(cluster: &Real, topic: &str, what: &str) -> Value {
    let path = format!("/admin/v2/{}/{what}", topic.replacen("://", "/", 1));
    let address = admin_http::address_of(&cluster.admin);
    let answer = admin_http::request(address, &cluster.token, "GET", &path, "").await.expect("an answer");
    if answer.is_success() { serde_json::from_str(&answer.body).expect("JSON") } else { Value::Null }
}

async fn consumer(client: &Client, topic: &str) -> Consumer {
    let builder = client.consumer(topic, "s").replicate_subscription_state(true);
    let subscribing = builder.initial_position(InitialPosition::Earliest).subscribe();
    within("a consumer", 30 * SECOND, subscribing).await.expect("a consumer")
}

async fn next(consumer: &mut Consumer) -> ReceivedMessage {
    within("a message", 30 * SECOND, consumer.receive()).await.expect("a message")
}

/// The next messages, acknowledged: each with its text and where it was published.
async fn texts(consumer: &mut Consumer, count: usize) -> Vec<(String, Option<String>)> {
    let mut texts = Vec::new();
    while texts.len() < count {
        let message = next(consumer).await;
        consumer.ack(&message).expect("acknowledged");
        texts.push((message.to_string_lossy().into_owned(), message.replicated_from().map(str::to_owned)));
    }
    texts
}

#[tokio::test]
async fn messages_go_to_the_clusters_of_their_choice() {
    let Some(both) = Real::both() else { return };
    let topic = format!("persistent://{}/clusters", replicated_namespace(&both, "chosen").await);
    let [first, second] = &both;
    let clients = [first, second].map(|cluster| cluster.builder().build().expect("a client"));
    let producer = within("a producer", 30 * SECOND, clients[0].producer(&topic).create()).await.expect("a producer");
    let messages = [
        Message::new("everywhere"),
        Message::new("here").with_replication_disabled(),
        Message::new("there").with_replication_clusters([NAMES[1]]),
        Message::new("elsewhere").with_replication_clusters(["third"]),
        Message::new("last").with_replication_clusters(NAMES),
    ];
    for message in messages {
        within("a receipt", 30 * SECOND, producer.send(message)).await.expect("stored");
    }
    let mut consumers = [consumer(&clients[0], &topic).await, consumer(&clients[1], &topic).await];
    let all = ["everywhere", "here", "there", "elsewhere", "last"];
    assert_eq!(texts(&mut consumers[0], 5).await, all.map(|text| (text.to_owned(), None)));
    let replicated = ["everywhere", "there", "last"].map(|text| (text.to_owned(), Some(NAMES[0].to_owned())));
    assert_eq!(texts(&mut consumers[1], 3).await, replicated);
    assert!(consumers.iter_mut().all(|consumer| matches!(consumer.try_receive(), Ok(None))));
    for client in clients {
        within("the close", 30 * SECOND, client.close()).await.expect("closed");
    }
}

/// The position of a replicated subscription follows in the other cluster. For that the brokers write markers into both
/// topics: these come to no consumer and stay in no backlog.
#[tokio::test]
async fn a_subscription_is_replicated_and_its_markers_are_not_seen() {
    let Some(both) = Real::both() else { return };
    let topic = format!("persistent://{}/subscription", replicated_namespace(&both, "subscription").await);
    let [first, second] = &both;
    let clients = [first, second].map(|cluster| cluster.builder().build().expect("a client"));
    let mut consumer = consumer(&clients[0], &topic).await;
    let producer = within("a producer", 30 * SECOND, clients[0].producer(&topic).create()).await.expect("a producer");
    let started = Instant::now();
    let mut sent = 0;
    // A snapshot is taken after messages, and an acknowledgement behind it goes to the other cluster.
    while ask(second, &topic, "stats").await["subscriptions"]["s"]["isReplicated"] != true {
        assert!(started.elapsed() < 60 * SECOND, "{}", ask(second, &topic, "stats").await);
        within("a receipt", 30 * SECOND, producer.send(format!("{sent}"))).await.expect("stored");
        let message = next(&mut consumer).await;
        assert_eq!(message.to_string_lossy(), sent.to_string());
        within("the confirmation", 30 * SECOND, consumer.ack_confirmed(&message)).await.expect("confirmed");
        sent += 1;
    }
    println!("the subscription is there after {:?} and {sent} messages", started.elapsed());
    for cluster in [first, second] {
        let entries = ask(cluster, &topic, "internalStats").await["entriesAddedCounter"].as_u64().expect("a number");
        assert!(entries > sent, "{entries} entries of {sent} messages: there are no markers");
    }
    assert_eq!(ask(first, &topic, "stats").await["subscriptions"]["s"]["isReplicated"], true);
    let drained = async { while ask(first, &topic, "stats").await["subscriptions"]["s"]["msgBacklog"] != 0 {} };
    within("an empty backlog", 30 * SECOND, drained).await;
    assert!(matches!(consumer.try_receive(), Ok(None)));

    // All of it once more, in the other cluster, under another name.
    let builder = clients[1].consumer(&topic, "whole").initial_position(InitialPosition::Earliest);
    let mut whole = within("a consumer", 30 * SECOND, builder.subscribe()).await.expect("a consumer");
    for number in 0..sent {
        assert_eq!(texts(&mut whole, 1).await, [(number.to_string(), Some(NAMES[0].to_owned()))]);
    }
    let drained = async { while ask(second, &topic, "stats").await["subscriptions"]["whole"]["msgBacklog"] != 0 {} };
    within("an empty backlog", 30 * SECOND, drained).await;
    assert!(matches!(whole.try_receive(), Ok(None)));
    for client in clients {
        within("the close", 30 * SECOND, client.close()).await.expect("closed");
    }
}
