//! Two real clusters: they replicate to each other, one is killed and comes back, and one migrates to the other; by this client
//! alone, and beside the Java client. Run by `scripts/real-failover`; without its environment each test says so and passes.
#![allow(unreachable_pub, reason = "modules of one test binary")]

#[path = "../common/mod.rs"]
mod common;
mod java;
mod replication;

use std::collections::BTreeSet;
use std::future::IntoFuture;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::admin_http;
use pulsar_native::{
    AttachState, AutoClusterFailover, Client, ClientBuilder, Cluster, Consumer, HandleState, InitialPosition, Producer,
    StateWatch, Token,
};

const SECOND: Duration = Duration::from_secs(1);

/// One of the two clusters.
struct Real {
    number: u32,
    url: String,
    admin: String,
    token: String,
}

impl Real {
    /// Both, where `scripts/real-failover` has started them.
    fn both() -> Option<[Self; 2]> {
        let of = |number: u32| {
            let get = |name: &str| std::env::var(format!("FAILOVER_{name}_{number}")).ok();
            Some(Self { number, url: get("URL")?, admin: get("ADMIN")?, token: get("TOKEN")? })
        };
        let both = [of(1), of(2)];
        if both.iter().any(Option::is_none) {
            // Past the capture of the test's output, so that it shows.
            let _ =
                std::io::stderr().write_all(b"skipped: scripts/real-failover starts the clusters that this needs\n");
        }
        let [first, second] = both;
        Some([first?, second?])
    }

    /// `kill` or `restart`, by `scripts/real-pulsar`.
    async fn script(&self, command: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/real-pulsar");
        let mut script = std::process::Command::new(script);
        script.args(["--name", &format!("failover-{}", self.number), command]);
        let status = tokio::task::spawn_blocking(move || script.status()).await.expect("no panic");
        assert!(status.expect("a script").success());
    }

    async fn admin(&self, method: &str, path: &str, body: &str) -> String {
        let address = admin_http::address_of(&self.admin);
        let answer = admin_http::request(address, &self.token, method, path, body).await.expect("an answer");
        assert!(answer.is_success(), "{method} {path}: {} {}", answer.status, answer.body);
        answer.body
    }

    fn builder(&self) -> ClientBuilder {
        Client::builder(&*self.url).authentication(Token::new(self.token.clone()))
    }

    /// Marks it as migrated to another one, or as not migrated any more.
    async fn migrate(&self, to: &Self, is_migrated: bool) {
        let path = format!("/admin/v2/clusters/standalone/migrate?migrated={is_migrated}");
        let body = format!(r#"{{"serviceUrl":"{}","brokerServiceUrl":"{}"}}"#, to.admin, to.url);
        self.admin("POST", &path, &body).await;
    }

    /// Whether all parts of a producer or consumer are attached to its broker.
    fn has(&self, state: &HandleState) -> bool {
        let is_here = |state: &AttachState| match state {
            AttachState::Attached { broker, .. } => self.url.ends_with(&**broker),
            _ => false,
        };
        state.is_attached() && state.parts.iter().all(|part| is_here(&part.state))
    }

    fn cluster(&self) -> Cluster {
        Cluster::new(&*self.url).authentication(Token::new(self.token.clone()))
    }
}

async fn within<F: IntoFuture>(what: &str, limit: Duration, future: F) -> F::Output {
    tokio::time::timeout(limit, future).await.unwrap_or_else(|_| panic!("waited {limit:?} for {what}"))
}

/// Waits until a producer or consumer is attached to this cluster.
async fn moves_to(cluster: &Real, what: &str, mut watch: StateWatch<HandleState>) {
    let moved = async { while !cluster.has(&watch.changed().await.expect("a state")) {} };
    within(what, 60 * SECOND, moved).await;
}

async fn pair(client: &Client, topic: &str) -> (Producer, Consumer) {
    let producer = within("a producer", 30 * SECOND, client.producer(topic).create()).await.expect("a producer");
    let reading = client.consumer(topic, "s").initial_position(InitialPosition::Earliest);
    (producer, within("a consumer", 30 * SECOND, reading.subscribe()).await.expect("a consumer"))
}

/// Sends the numbers of a range behind the sender's name; all of them are confirmed.
async fn send(producer: &Producer, sender: &str, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let stored = within("a receipt", 60 * SECOND, producer.send(format!("{sender} {number}"))).await;
        stored.unwrap_or_else(|error| panic!("{number}: {error}"));
    }
}

/// Receives until all of these have come from this sender; others may be repetitions, or of another one.
async fn receive(consumer: &mut Consumer, sender: &str, numbers: std::ops::Range<u32>) {
    let mut missing: BTreeSet<String> = numbers.map(|number| format!("{sender} {number}")).collect();
    while !missing.is_empty() {
        let message = within("a message", 60 * SECOND, consumer.receive()).await.expect("a message");
        missing.remove(&*message.to_string_lossy());
        consumer.ack(&message).expect("acknowledged");
    }
}

/// The numbers that a topic stores.
async fn stored(cluster: &Real, topic: &str) -> BTreeSet<u32> {
    let client = within("a client", 30 * SECOND, cluster.builder().connect()).await.expect("a client");
    let reading = client.consumer(topic, "whole").initial_position(InitialPosition::Earliest);
    let mut consumer = within("a consumer", 30 * SECOND, reading.subscribe()).await.expect("a consumer");
    let mut stored = BTreeSet::new();
    while let Ok(message) = tokio::time::timeout(2 * SECOND, consumer.receive()).await {
        let text = message.expect("a message").to_string_lossy().into_owned();
        stored.insert(text.strip_prefix("ours ").and_then(|number| number.parse().ok()).expect("a number"));
    }
    client.close().await.expect("closed");
    stored
}

/// A client of the primary with `AutoClusterFailover`.
async fn failing_over(primary: &Real, secondary: &Real) -> Client {
    let failover = AutoClusterFailover::new(secondary.cluster()).check_interval(SECOND);
    let failover = failover.failover_delay(2 * SECOND).switch_back_delay(3 * SECOND);
    let client = primary.builder().service_url_provider(failover).connect();
    within("a client", 30 * SECOND, client).await.expect("a client")
}

/// Waits until a client uses this cluster again.
async fn switches_back(client: &Client, primary: &Real) {
    let mut state = client.watch_state();
    let switched = async { while *state.changed().await.expect("a state").service_url != *primary.url {} };
    within("the switch back", 20 * SECOND, switched).await;
}

#[tokio::test]
async fn the_secondary_takes_over_from_a_cluster_that_is_killed_and_gives_back() {
    let Some([primary, secondary]) = Real::both() else { return };
    let topic = format!("failover-{}", std::process::id());
    let client = failing_over(&primary, &secondary).await;
    let (producer, mut consumer) = pair(&client, &topic).await;
    send(&producer, "ours", 0..100).await;
    receive(&mut consumer, "ours", 0..100).await;

    primary.script("kill").await;
    let lost = Instant::now();
    send(&producer, "ours", 100..200).await;
    receive(&mut consumer, "ours", 100..200).await;
    println!("both directions on the secondary after {:?}", lost.elapsed());
    assert!(lost.elapsed() < 10 * SECOND, "{:?}", lost.elapsed());
    assert_eq!(&*client.state().service_url, &*secondary.url);

    primary.script("restart").await;
    let back = Instant::now();
    switches_back(&client, &primary).await;
    send(&producer, "ours", 200..300).await;
    receive(&mut consumer, "ours", 200..300).await;
    println!("both directions on the primary {:?} after it was healthy", back.elapsed());
    assert!(back.elapsed() < 10 * SECOND, "{:?}", back.elapsed());
    within("the close", 30 * SECOND, client.close()).await.expect("closed");

    let numbers = |ranges: [std::ops::Range<u32>; 2]| ranges.into_iter().flatten().collect::<BTreeSet<u32>>();
    assert_eq!(stored(&primary, &topic).await, numbers([0..100, 200..300]), "what was confirmed on the primary");
    assert_eq!(stored(&secondary, &topic).await, numbers([100..200, 0..0]), "what was confirmed on the secondary");
}

/// The admin API marks the first cluster as migrated: a producer goes to the second one, and a consumer once it has read
/// what is here. What opens later is sent there too.
#[tokio::test]
async fn topics_migrate_by_the_admin_api() {
    let Some([blue, green]) = Real::both() else { return };
    let topic = format!("migrating-{}", std::process::id());
    let client = within("a client", 30 * SECOND, blue.builder().connect()).await.expect("a client");
    let (producer, mut consumer) = pair(&client, &topic).await;
    send(&producer, "ours", 0..100).await;

    blue.migrate(&green, true).await;
    let started = Instant::now();
    moves_to(&green, "the producer to move", producer.watch_state()).await;
    println!("the producer is there after {:?}", started.elapsed());
    assert!(blue.has(&consumer.state()), "it has read nothing yet");
    send(&producer, "ours", 100..200).await;
    receive(&mut consumer, "ours", 0..100).await;
    moves_to(&green, "the consumer to move", consumer.watch_state()).await;
    println!("the consumer is there after {:?}", started.elapsed());
    receive(&mut consumer, "ours", 100..200).await;
    let late = within("a producer", 60 * SECOND, client.producer("migrated-late").create()).await.expect("a producer");
    assert!(green.has(&late.state()), "{}", late.state());
    send(&late, "ours", 0..1).await;
    within("the close", 60 * SECOND, client.close()).await.expect("closed");

    blue.migrate(&green, false).await;
    assert_eq!(stored(&blue, &topic).await, (0..100).collect(), "what was confirmed before");
    assert_eq!(stored(&green, &topic).await, (100..200).collect(), "what was confirmed after");
}
