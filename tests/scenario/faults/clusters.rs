//! Several clusters behind one client, and a cluster that migrates to another.

use super::support::*;

use pulsar_native::{AutoClusterFailover, Cluster};

const SECOND: Duration = Duration::from_secs(1);

/// Two brokers, each a cluster of its own with its own key for tokens.
struct Clusters {
    net: Net,
    primary: EmbeddedBroker,
    secondary: EmbeddedBroker,
}

impl Clusters {
    async fn new() -> Self {
        let start = |key: &'static str| EmbeddedBroker::builder().token_secret_key(key).start();
        let primary = start("of the primary").await.expect("a free port");
        let secondary = start("of the secondary").await.expect("a free port");
        let net = Net::default();
        net.add(&primary);
        net.add(&secondary);
        Self { net, primary, secondary }
    }

    fn builder(&self) -> ClientBuilder {
        builder(&self.primary, &self.net).authentication(Token::new(self.primary.token("admin")))
    }

    fn second(&self) -> Cluster {
        Cluster::new(self.secondary.url()).authentication(Token::new(self.secondary.token("admin")))
    }

    async fn client(&self) -> Client {
        within("the connection", self.builder().connect()).await.expect("a client")
    }

    async fn failing_over(&self) -> Client {
        let failover = AutoClusterFailover::new(self.second());
        let failover = failover.failover_delay(2 * SECOND).switch_back_delay(3 * SECOND).check_interval(SECOND);
        within("the connection", self.builder().service_url_provider(failover).connect()).await.expect("a client")
    }

    async fn close_and_check(self, client: Client) {
        within("the close", client.close()).await.expect("closed");
        stop_and_check(&self.primary).await;
        stop_and_check(&self.secondary).await;
    }
}

fn backlog(broker: &EmbeddedBroker) -> Option<u64> {
    broker.stats(TOPIC)?.subscriptions.get("s").map(|one| one.msg_backlog)
}

async fn uses(client: &Client, broker: &EmbeddedBroker) {
    let url = broker.url();
    until("the other cluster", || client.state().service_url.to_string(), |used| *used == url).await;
}

async fn pair(client: &Client) -> (Producer, Consumer) {
    let producer = created(client.producer(TOPIC).batching(false)).await;
    let reading = client.consumer(TOPIC, "s").initial_position(InitialPosition::Earliest);
    (producer, subscribed(reading).await)
}

/// Both directions work on the secondary within 10 s of the primary's end, and on the primary within 10 s of its return.
#[tokio::test(start_paused = true)]
async fn the_secondary_takes_over_and_gives_back() {
    let clusters = Clusters::new().await;
    let client = clusters.failing_over().await;
    let (producer, mut consumer) = pair(&client).await;
    send(&producer, "1").await;
    receive_up_to(&mut consumer, "1").await;

    clusters.net.remove(&clusters.primary);
    clusters.primary.drop_connections();
    let (lost, pending) = (Instant::now(), enqueue_numbers(&producer, 2..5).await);
    confirmed(pending).await;
    assert_eq!(receive_up_to(&mut consumer, "4").await, numbers(2..5));
    assert!(lost.elapsed() < 10 * SECOND, "{:?}", lost.elapsed());
    uses(&client, &clusters.secondary).await;

    clusters.net.add(&clusters.primary);
    let back = Instant::now();
    uses(&client, &clusters.primary).await;
    send(&producer, "5").await;
    receive_up_to(&mut consumer, "5").await;
    assert!(back.elapsed() < 10 * SECOND, "{:?}", back.elapsed());
    until("all acknowledged", || backlog(&clusters.primary), |left| *left == Some(0)).await;
    clusters.close_and_check(client).await;
}

/// A primary that is away for less than the delay is waited for.
#[tokio::test(start_paused = true)]
async fn a_short_outage_changes_nothing() {
    let clusters = Clusters::new().await;
    let client = clusters.failing_over().await;
    let (producer, _consumer) = pair(&client).await;
    clusters.net.remove(&clusters.primary);
    clusters.primary.drop_connections();
    pass(SECOND + SECOND / 2).await;
    clusters.net.add(&clusters.primary);
    send(&producer, "1").await;
    pass(10 * SECOND).await;
    assert_eq!((backlog(&clusters.primary), backlog(&clusters.secondary)), (Some(1), None));
    clusters.close_and_check(client).await;
}

/// Ids of one cluster name other messages in the next one: neither what was acknowledged and not sent, nor what is
/// acknowledged later, may acknowledge those.
#[tokio::test(start_paused = true)]
async fn acknowledgements_stay_in_their_cluster() {
    let clusters = Clusters::new().await;
    let other = Client::builder(clusters.secondary.url()).dialer(clusters.net.clone());
    let other = other.authentication(Token::new(clusters.secondary.token("admin"))).connect();
    let other = within("the connection", other).await.expect("a client");
    let client = clusters.client().await;
    let (producer, consumer) = pair(&client).await;
    drop(consumer);
    let reading = client.consumer(TOPIC, "s").acknowledgment_group_time(60 * SECOND);
    let mut consumer = subscribed(reading.initial_position(InitialPosition::Earliest)).await;
    let (second, _other_consumer) = pair(&other).await;
    for number in 0..3 {
        let here = within("a receipt", producer.send(number.to_string())).await.expect("stored");
        let there = within("a receipt", second.send(format!("other {number}"))).await.expect("stored");
        assert_eq!(here, there, "the same ids in both");
    }
    drop(_other_consumer);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(within("a message", consumer.receive()).await.expect("a message"));
    }
    consumer.ack(&held[0]).expect("noted");

    client.service_url_control().switch_to(clusters.second()).expect("a good cluster");
    uses(&client, &clusters.secondary).await;
    assert_eq!(text(&mut consumer).await, "other 0");
    consumer.ack(&held[1]).expect("ignored");
    consumer.ack_id(&held[1].id()).expect("ignored");
    consumer.nack(&held[1]).expect("ignored");
    consumer.ack_cumulative(&held[2]).expect("ignored");
    let refused = within("the answer", consumer.ack_confirmed(&held[2])).await.expect_err("of another cluster");
    assert_eq!(refused.kind(), ErrorKind::NotAllowed, "{refused}");
    pass(120 * SECOND).await;
    assert_eq!((backlog(&clusters.primary), backlog(&clusters.secondary)), (Some(3), Some(3)));
    assert_eq!(text(&mut consumer).await, "other 1");
    let last = within("a message", consumer.receive()).await.expect("a message");
    within("the answer", consumer.ack_cumulative_confirmed(&last)).await.expect("confirmed");
    assert_eq!(backlog(&clusters.secondary), Some(0));
    within("the close", other.close()).await.expect("closed");
    clusters.close_and_check(client).await;
}

/// A bad URL changes nothing, and a closed client goes nowhere.
#[tokio::test(start_paused = true)]
async fn a_switch_that_cannot_be_is_refused() {
    let clusters = Clusters::new().await;
    let client = clusters.client().await;
    let control = client.service_url_control();
    let refused = control.switch_to(Cluster::new("kafka://host")).expect_err("no such scheme");
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{refused}");
    assert_eq!(control.current().service_url(), clusters.primary.url());
    within("the close", client.close()).await.expect("closed");
    let refused = control.switch_to(clusters.second()).expect_err("closed");
    assert_eq!(refused.kind(), ErrorKind::Closed, "{refused}");
    stop_and_check(&clusters.primary).await;
}

/// A producer leaves a cluster that migrates at once, its consumer once it has read what is there; what opens later finds
/// its way by itself.
#[tokio::test(start_paused = true)]
async fn a_cluster_migrates() {
    let stage = Stage::new().await;
    let green = stage.another().await;
    let producer = stage.producer(TOPIC).await;
    let mut consumer = stage.consumer(TOPIC).await;
    let drained = stage.client.consumer(TOPIC, "drained");
    let mut drained = subscribed(drained).await;
    send(&producer, "blue").await;
    receive_up_to(&mut drained, "blue").await;
    until(
        "one drained",
        || stage.broker.stats(TOPIC).map(|stats| stats.subscriptions["drained"].msg_backlog),
        |left| *left == Some(0),
    )
    .await;

    stage.broker.migrate(Some(&green.url()), None);
    send(&producer, "green").await;
    assert_eq!(stage.attached(TOPIC), (0, 1), "the one with a backlog stays");
    assert_eq!(text(&mut drained).await, "green");
    let late = stage.client.producer("late");
    send(&created(late).await, "first").await;
    assert_eq!(receive_up_to(&mut consumer, "green").await, ["blue", "green"]);
    assert_eq!(stage.attached(TOPIC), (0, 0));
    assert!(stage.broker.topics().iter().all(|topic| stage.attached(topic) == (0, 0)));
    within("the close", stage.client.close()).await.expect("closed");
    stop_and_check(&stage.broker).await;
    stop_and_check(&green).await;
}
