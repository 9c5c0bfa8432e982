//! Steps that several tests have in common.

use pulsar_native::client::{DialFuture, Dialer, Socket, Target};
use tokio::net::TcpStream;

use crate::environment::Environment;
use crate::quickstart;
use crate::suite::target::Role;
use crate::suite::*;

/// The quickstart, unchanged, on a topic of each broker.
pub async fn quickstart_on_both(cluster: &Environment, namespace: &str, url: &str) {
    let namespace = cluster.namespace(namespace).await;
    let token = cluster.admin.token.clone();
    for topic in cluster.topic_of_each(&namespace).await {
        within(&format!("the quickstart on {topic}"), quickstart::walk_through(url, &token, &topic))
            .await
            .expect("every step");
    }
}

/// Sends a message and receives it.
pub async fn exchange(client: &Client, topic: &str) {
    let builder = client.consumer(topic, "s").initial_position(InitialPosition::Earliest);
    let mut consumer = subscribed(builder).await;
    let producer = created(client.producer(topic)).await;
    send(&producer, "hello").await;
    let message = receive(&mut consumer).await;
    assert_eq!(message.to_string_lossy(), "hello");
    within("the confirmation", consumer.ack_confirmed(&message)).await.expect("confirmed");
    within("the close", consumer.close()).await.expect("closed");
    within("the close", producer.close()).await.expect("closed");
}

/// A producer and a consumer go along as their topic is unloaded, and given to the other broker and back: nothing is
/// lost, and what was acknowledged does not come twice by more than an unload may repeat.
pub async fn moves(cluster: &Environment, client: &Client, topic: &str) {
    let builder = client.consumer(topic, "s").initial_position(InitialPosition::Earliest);
    let mut consumer = subscribed(builder).await;
    let producer = created(client.producer(topic)).await;
    let mut number = 0;
    for to in [1, 0, 1] {
        give(cluster, topic, to).await;
        number = pass(&producer, &mut consumer, number).await;
        cluster.admin.unload(topic).await.expect("unloaded");
        number = pass(&producer, &mut consumer, number).await;
    }
    within("the close", consumer.close()).await.expect("closed");
    within("the close", producer.close()).await.expect("closed");
}

/// Gives the topic to this broker, 0 or 1. The leader of the cluster may place it elsewhere.
async fn give(cluster: &Environment, topic: &str, to: usize) {
    let give = || async {
        cluster.admin.transfer(topic, to).await.expect("transferred");
        cluster.admin.owner(topic).await
    };
    let _ = until("the topic to be where it was moved", give, |owner| *owner == Ok(to)).await;
}

/// Sends some messages with numbers from `first` on and receives them all, in order. The number after the last.
async fn pass(producer: &Producer, consumer: &mut Consumer, first: u32) -> u32 {
    let end = first + 10;
    for number in first..end {
        send(producer, number.to_string()).await;
    }
    let mut next = first;
    while next < end {
        let message = receive(consumer).await;
        within("the confirmation", consumer.ack_confirmed(&message)).await.expect("confirmed");
        let number: u32 = message.to_string_lossy().parse().expect("a number");
        assert!(number <= next, "{number} came before {next}");
        next = next.max(number + 1);
    }
    end
}

/// Where clients dial: plain TCP, each address noted.
#[derive(Clone, Default)]
pub struct Dials(Arc<Mutex<BTreeSet<String>>>);

impl Dials {
    /// The addresses so far, `host:port`.
    pub fn seen(&self) -> BTreeSet<String> {
        self.0.lock().expect("no panic").clone()
    }
}

impl Dialer for Dials {
    fn dial<'a>(&'a self, target: &'a Target) -> DialFuture<'a> {
        Box::pin(async move {
            self.0.lock().expect("no panic").insert(target.address.to_string());
            let socket = TcpStream::connect((&*target.address.host, target.address.port)).await?;
            Ok(Box::new(socket) as Box<dyn Socket>)
        })
    }
}

/// A role without rights is refused by the brokers, an expired token by whoever is asked first: tokens are the client's
/// own, all the way.
pub async fn tokens_are_the_clients_own(cluster: &Environment, url: &str, topic: &str) {
    let connect = |token| {
        let builder = cluster.builder(url).authentication(token).http_redirect_hosts(["127.0.0.1", "127.0.0.2"]);
        within("the connection", builder.connect())
    };
    let nobody = connect(cluster.token(Role::Nobody)).await.expect("the role is known");
    let error = within("a refusal", nobody.producer(topic).create()).await.expect_err("no rights");
    assert_eq!(error.kind(), ErrorKind::Authorization, "{error}");
    within("the close", nobody.close()).await.expect("closed");
    let error = connect(cluster.expired_token()).await.expect_err("an expired token");
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
    assert!(!error.to_string().contains('\n'), "{error}");
}
