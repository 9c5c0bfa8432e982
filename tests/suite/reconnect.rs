//! Topics move and connections break; producers and consumers go on.

use tokio::sync::watch;

use super::relay::Relay;
use super::target::Feature;
use super::*;

const COUNT: usize = 3000;
const LONG: Duration = Duration::from_secs(30);

/// Messages on their way in both directions. The sender stays less than half of them ahead of the last
/// [`has_sent`](Self::has_sent), so that whatever happens then happens to some.
struct Traffic {
    sent: watch::Receiver<usize>,
    gate: watch::Sender<usize>,
    sending: tokio::task::JoinHandle<()>,
    receiving: tokio::task::JoinHandle<Consumer>,
}

impl Traffic {
    async fn start(client: &Client, topic: &str, batching: bool) -> Self {
        let mut consumer = subscribed(client.consumer(topic, "s")).await;
        let producer = created(client.producer(topic).batching(batching)).await;
        let (counting, sent) = watch::channel(0);
        let (gate, mut opened) = watch::channel(COUNT / 2);
        let sending = tokio::spawn(async move {
            for number in 0..COUNT {
                within("the gate", opened.wait_for(|gate| number < *gate)).await.expect("somebody looks on");
                drop(within("capacity", producer.enqueue(number.to_string())).await.expect("accepted"));
                counting.send_replace(number);
                // Some are on the way, and some are stored, when something happens to them.
                if number % 50 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            within("the flush", producer.flush()).await.expect("nothing failed");
        });
        let receiving = tokio::spawn(async move {
            // What comes again is known by its number: order and completeness are judged on first arrivals.
            let mut next = 0;
            while next < COUNT {
                let message = receive(&mut consumer).await;
                let number: usize = message.to_string_lossy().parse().expect("a number");
                assert!(number <= next, "{next} is missing before {number}");
                next = next.max(number + 1);
                consumer.ack(&message).expect("acknowledged");
            }
            consumer
        });
        Self { sent, gate, sending, receiving }
    }

    async fn has_sent(&mut self, count: usize) {
        within("enough to be sent", self.sent.wait_for(|sent| *sent >= count)).await.expect("it is sending");
        self.gate.send_replace(count + COUNT / 2);
    }

    /// Nothing was lost, the order was kept, everything is acknowledged.
    async fn ends_well(self, target: &Target, topic: &str) {
        within("the sender to end", self.sending).await.expect("no panic");
        let consumer = within("the receiver to end", self.receiving).await.expect("no panic");
        drained_of_duplicates(target, topic, consumer).await;
    }
}

/// Without deduplication a message whose receipt was lost is stored again and may still come.
async fn drained_of_duplicates(target: &Target, topic: &str, mut consumer: Consumer) {
    let late = tokio::spawn(async move {
        while let Ok(message) = consumer.receive().await {
            consumer.ack(&message).expect("acknowledged");
        }
    });
    drained(target, topic, "s").await;
    late.abort();
}

pub async fn unload_in_full_flight(target: &Target) {
    let client = target.client().await;
    for batching in [true, false] {
        let topic = target.topic("unload");
        let mut traffic = Traffic::start(&client, &topic, batching).await;
        for at in [COUNT / 4, COUNT / 2] {
            traffic.has_sent(at).await;
            target.unload(&topic).await;
        }
        traffic.ends_well(target, &topic).await;
    }
}

pub async fn connection_cut_in_full_flight(target: &Target) {
    let relay = Relay::to(target).await;
    let client = relay.client(target, LONG).await;
    for batching in [true, false] {
        let topic = target.topic("cut");
        let mut traffic = Traffic::start(&client, &topic, batching).await;
        for at in [COUNT / 4, COUNT / 2, COUNT * 3 / 4] {
            traffic.has_sent(at).await;
            relay.cut();
        }
        traffic.ends_well(target, &topic).await;
    }
}

/// With deduplication a message is stored once, however often it had to be sent.
pub async fn deduplication_makes_it_exactly_once(target: &Target) {
    let target = target.with(Feature::Deduplication).await;
    let relay = Relay::to(&target).await;
    let client = relay.client(&target, LONG).await;
    let topic = target.topic("exactly-once");
    let mut traffic = Traffic::start(&client, &topic, true).await;
    for at in [COUNT / 4, COUNT / 2, COUNT * 3 / 4] {
        traffic.has_sent(at).await;
        relay.cut();
    }
    within("the sender to end", traffic.sending).await.expect("no panic");
    drop(within("the receiver to end", traffic.receiving).await.expect("no panic"));
    let client = target.client().await;
    let builder = client.consumer(&topic, "from the start").initial_position(InitialPosition::Earliest);
    let mut consumer = subscribed(builder).await;
    let last = within("the last id", consumer.last_message_ids()).await.expect("an id");
    let stored = receive_all(&mut consumer, COUNT).await;
    let expected: Vec<_> = (0..COUNT).map(|number| number.to_string()).collect();
    assert_eq!(stored.iter().map(ReceivedMessage::to_string_lossy).collect::<Vec<_>>(), expected);
    assert_eq!(last, [stored[COUNT - 1].id()], "nothing is stored behind the last");
}

pub async fn broker_away_for_a_while(target: &Target) {
    let relay = Relay::to(target).await;
    let client = relay.client(target, LONG).await;
    let topic = target.topic("away");
    let mut consumer = subscribed(client.consumer(&topic, "s")).await;
    let producer = created(client.producer(&topic)).await;
    send(&producer, "before").await;
    let before = receive(&mut consumer).await;
    relay.refuse(true);
    relay.cut();
    let look = || async { producer.is_connected() || consumer.is_connected() };
    until("both to notice", look, |connected| !connected).await;
    consumer.ack(&before).expect("acknowledgements wait as well");
    let mut waiting = Vec::new();
    for number in 0..10 {
        waiting.push(within("capacity", producer.enqueue(number.to_string())).await.expect("accepted"));
    }
    let late = tokio::spawn(client.producer(target.topic("never")).create());
    let refused = relay.refused();
    until("two more dials to be refused", || async { relay.refused() }, |seen| *seen >= refused + 2).await;
    assert!(!late.is_finished(), "no broker, no answer yet");
    late.abort();
    relay.refuse(false);
    for pending in waiting {
        within("a receipt", pending).await.expect("stored");
    }
    for number in 0..10 {
        let message = receive(&mut consumer).await;
        assert_eq!(message.to_string_lossy(), number.to_string());
        consumer.ack(&message).expect("acknowledged");
    }
    drained_of_duplicates(target, &topic, consumer).await;
}

pub async fn sends_are_given_up_in_time(target: &Target) {
    let relay = Relay::to(target).await;
    let client = relay.client(target, LONG).await;
    let topic = target.topic("given-up");
    let builder = client.producer(&topic).send_timeout(Duration::from_secs(1));
    let producer = created(builder).await;
    send(&producer, "before").await;
    relay.refuse(true);
    relay.cut();
    until("it to notice", || async { producer.is_connected() }, |connected| !connected).await;
    let started = Instant::now();
    let failed = within("the timeout", producer.send("while away")).await.expect_err("nobody there");
    assert_eq!(failed.error().kind(), ErrorKind::TimedOut, "{failed}");
    assert!(!failed.may_be_stored(), "it never went out: {failed}");
    assert!(failed.to_string().contains(&topic), "names the topic: {failed}");
    assert!(started.elapsed() < Duration::from_secs(5), "took {:?}", started.elapsed());
    let pending = within("capacity", producer.enqueue("while away")).await.expect("accepted");
    let flushed = within("the flush", producer.flush()).await.expect_err("a message failed");
    assert_eq!(flushed.kind(), ErrorKind::TimedOut, "{flushed}");
    within("the timeout", pending).await.expect_err("nobody there");
    relay.refuse(false);
    until("it to return", || async { producer.is_connected() }, |connected| *connected).await;
    send(&producer, "after").await;
}

pub async fn creation_is_given_up_in_time(target: &Target) {
    let relay = Relay::to(target).await;
    let token = Token::new(target.cluster().token(target::Role::Admin));
    let builder = relay.builder(target).authentication(token).operation_timeout(Duration::from_secs(2));
    let client = within("the connection", builder.connect()).await.expect("a client");
    relay.refuse(true);
    relay.cut();
    let topic = target.topic("never-made");
    let started = Instant::now();
    let error = within("the timeout", client.producer(&topic).create()).await.expect_err("nobody there");
    assert!(matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Connection), "{error:?}");
    assert!(error.is_retriable(), "{error}");
    assert!(error.to_string().contains(&topic), "names the topic: {error}");
    let error = within("the timeout", client.consumer(&topic, "s").subscribe()).await.expect_err("nobody there");
    assert!(error.to_string().contains(&topic), "names the topic: {error}");
    assert!(started.elapsed() < Duration::from_secs(10), "took {:?}", started.elapsed());
    within("the close", client.close()).await.expect("closed");
}

/// A connection that goes silent is found out by the keep-alive; what the broker still holds of the old one gives way.
pub async fn silent_connection(target: &Target) {
    let relay = Relay::to(target).await;
    let client = relay.client(target, Duration::from_secs(2)).await;
    let topic = target.topic("silent");
    let mut consumer = subscribed(client.consumer(&topic, "s")).await;
    let producer = created(client.producer(&topic)).await;
    send(&producer, "before").await;
    let message = receive(&mut consumer).await;
    target.confirm(&consumer, &message).await;
    drained(target, &topic, "s").await;
    relay.freeze();
    send(&producer, "over a new connection").await;
    let message = receive(&mut consumer).await;
    assert_eq!(message.to_string_lossy(), "over a new connection");
    target.confirm(&consumer, &message).await;
    drained_of_duplicates(target, &topic, consumer).await;
}

/// A deleted topic comes back where topics are made on demand: the producer attaches to the new one.
pub async fn deleted_topic_is_made_anew(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("deleted");
    let producer = created(client.producer(&topic)).await;
    send(&producer, "to the first").await;
    within("the deletion", target.cluster().delete(&topic)).await;
    send(&producer, "to the second").await;
    let builder = client.consumer(&topic, "s").initial_position(InitialPosition::Earliest);
    let mut consumer = subscribed(builder).await;
    assert_eq!(texts(&mut consumer, 1).await, ["to the second"]);
}
