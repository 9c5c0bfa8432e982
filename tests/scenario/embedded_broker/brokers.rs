//! Several brokers of one cluster: redirects, topics that move, a broker that dies and comes back.

use std::time::Duration;

use pulsar_native::broker::EmbeddedBroker;
use pulsar_native::{Client, InitialPosition};
use tokio::net::TcpStream;

use crate::common::within::within_time;

/// A minute: a client that comes back takes far less.
const PATIENCE: Duration = Duration::from_secs(60);

async fn cluster(brokers: usize) -> EmbeddedBroker {
    EmbeddedBroker::builder().brokers(brokers).start().await.expect("it starts")
}

#[tokio::test]
async fn a_client_of_either_broker_gets_to_every_topic() {
    let cluster = cluster(2).await;
    let mut owners = [0, 0];
    for url in cluster.broker_urls() {
        let client = Client::builder(url).connect().await.expect("connected");
        for number in 0..8 {
            let topic = format!("topic-{number}");
            client.producer(&topic).create().await.expect("created").send("one").await.expect("sent");
            owners[cluster.owner(&topic).expect("it was looked up")] += 1;
        }
    }
    assert!(owners.iter().all(|topics| *topics > 0) && cluster.topics().len() == 8, "{owners:?}");
    assert_eq!(cluster.violations(), []);
}

#[tokio::test]
async fn a_topic_moves_under_its_producer_and_consumer() {
    let cluster = cluster(3).await;
    let client = Client::builder(cluster.url()).connect().await.expect("connected");
    let producer = client.producer("orders").create().await.expect("created");
    let mut consumer = client.consumer("orders", "s").subscribe().await.expect("subscribed");
    for to in [1, 2, 0, 2] {
        assert!(cluster.move_topic("orders", to));
        assert_eq!(cluster.owner("orders"), Some(to));
        producer.send(format!("on {to}")).await.expect("sent");
        let message = within_time(PATIENCE, "a message", consumer.receive()).await.expect("received");
        assert_eq!(message.payload(), format!("on {to}").as_bytes());
        consumer.ack(&message).expect("acknowledged");
    }
    cluster.assert_backlog("orders", "s", 0).await;
    assert!(!cluster.move_topic("orders", 3), "there is no such broker");
    assert_eq!(cluster.violations(), []);
}

#[tokio::test]
async fn what_a_broker_owned_is_served_by_others_while_it_is_dead() {
    let cluster = cluster(2).await;
    let client = Client::builder(cluster.url()).connect().await.expect("connected");
    let producer = client.producer("orders").name("shop").create().await.expect("created");
    let builder = client.consumer("orders", "s").initial_position(InitialPosition::Earliest);
    let mut consumer = builder.subscribe().await.expect("subscribed");
    for round in 0..4 {
        let owner = cluster.owner("orders").expect("it is in use");
        let address = cluster.broker_urls()[owner].replace("pulsar://", "");
        assert!(cluster.stop_broker(owner).await);
        TcpStream::connect(&address).await.expect_err("its port is closed");
        assert!(!cluster.stop_broker(1 - owner).await, "the last one stays");
        within_time(PATIENCE, "a receipt", producer.send(format!("{round}"))).await.expect("sent");
        let message = within_time(PATIENCE, "a message", consumer.receive()).await.expect("received");
        assert_eq!(message.payload(), format!("{round}").as_bytes());
        consumer.ack(&message).expect("acknowledged");
        assert_eq!(cluster.owner("orders"), Some(1 - owner));
        assert!(cluster.start_broker(owner).await.expect("its port is free"));
        assert!(!cluster.start_broker(owner).await.expect("nothing to do"), "it runs");
        TcpStream::connect(&address).await.expect("it listens again");
    }
    cluster.assert_backlog("orders", "s", 0).within(Duration::from_secs(10)).await;
    cluster.assert_published("orders", 4).await;
    assert_eq!(cluster.violations(), []);
}

#[tokio::test]
async fn numbers_of_brokers_that_cannot_be_are_refused() {
    for brokers in [0, 17] {
        let error = EmbeddedBroker::builder().brokers(brokers).start().await.expect_err("refused").to_string();
        assert_eq!(error, format!("a cluster cannot have {brokers} brokers, only 1 to 16"));
    }
}

/// A suite of tests starts one for each of them.
#[tokio::test]
async fn a_hundred_brokers_live_in_one_process() {
    let mut brokers = Vec::new();
    for _ in 0..100 {
        let broker = cluster(1).await;
        let client = Client::builder(broker.url()).connect().await.expect("connected");
        brokers.push((broker, client));
    }
    for (number, (_, client)) in brokers.iter().enumerate() {
        client.producer("orders").create().await.expect("created").send(format!("{number}")).await.expect("sent");
    }
    for (number, (broker, _)) in brokers.iter().enumerate() {
        let stored = broker.stored_messages("orders");
        assert!(stored.len() == 1 && stored[0].payload == number.to_string(), "{stored:?}");
        broker.stop().await;
    }
}
