//! Interceptors of producers and consumers, in the order in which they were added; one in the middle panics.

use super::*;
use pulsar_native::{
    ConsumerInterceptor, DeadLetterPolicy, Error, ProducerInterceptor, SendError, SubscriptionType, TryEnqueueError,
};

/// What was told, by which interceptor.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn add(&self, line: String) {
        self.0.lock().expect("no panic").push(line);
    }

    /// Those that begin with `what`, each without it.
    fn of(&self, what: &str) -> Vec<String> {
        let told = self.0.lock().expect("no panic");
        told.iter().filter_map(|line| line.strip_prefix(what)).map(str::to_owned).collect()
    }

    async fn until(&self, what: &str, count: usize) -> Vec<String> {
        until(what, || async { self.of(what) }, |told| told.len() >= count).await
    }
}

struct Named(&'static str, Told);

/// It panics in each call.
struct Broken;

fn text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload).into_owned()
}

impl ProducerInterceptor for Named {
    fn before_send(&self, _topic: &str, message: Message) -> Message {
        self.1.add(format!("before {} {}", self.0, text(message.payload())));
        message.with_property(self.0, "seen")
    }

    fn on_send_acknowledgement(&self, topic: &str, message: &Message, result: Result<&MessageId, &SendError>) {
        assert!(topic.starts_with("persistent://"));
        assert!(message.properties().any(|(name, _)| name == self.0), "as it was sent");
        let outcome = result.map_or_else(|error| format!("{:?}", error.error().kind()), |id| id.to_string());
        let size = message.payload().len().min(5);
        self.1.add(format!("after {} {} {outcome}", self.0, text(&message.payload()[..size])));
    }
}

impl ProducerInterceptor for Broken {
    fn before_send(&self, _: &str, _: Message) -> Message {
        panic!("before_send")
    }

    fn on_send_acknowledgement(&self, _: &str, _: &Message, _: Result<&MessageId, &SendError>) {
        panic!("on_send_acknowledgement")
    }
}

impl ConsumerInterceptor for Named {
    fn before_consume(&self, message: &ReceivedMessage) {
        self.1.add(format!("consume {} {}", self.0, message.to_string_lossy()));
    }

    fn on_acknowledge(&self, id: &MessageId, result: Result<(), &Error>) {
        self.1.add(format!("ack {} {id} {:?}", self.0, result.map_err(Error::kind)));
    }

    fn on_acknowledge_cumulative(&self, id: &MessageId, result: Result<(), &Error>) {
        self.1.add(format!("cumulative {} {id} {:?}", self.0, result.map_err(Error::kind)));
    }

    fn on_negative_acks_send(&self, ids: &[MessageId]) {
        self.1.add(format!("nack {} {ids:?}", self.0));
    }

    fn on_ack_timeout_send(&self, ids: &[MessageId]) {
        self.1.add(format!("timeout {} {ids:?}", self.0));
    }
}

impl ConsumerInterceptor for Broken {
    fn before_consume(&self, _: &ReceivedMessage) {
        panic!("before_consume")
    }

    fn on_acknowledge(&self, _: &MessageId, _: Result<(), &Error>) {
        panic!("on_acknowledge")
    }

    fn on_negative_acks_send(&self, _: &[MessageId]) {
        panic!("on_negative_acks_send")
    }
}

/// Before each send, then with its outcome: stored, refused as too large, given back for want of room.
pub async fn messages_that_are_sent(target: &Target) {
    let (client, told) = (target.client().await, Told::default());
    let topic = target.topic("intercepted");
    let mut consumer = subscribed(client.consumer(&topic, "s")).await;
    let builder = client.producer(&topic).intercept(Named("a", told.clone())).intercept(Broken);
    let producer = created(builder.intercept(Named("b", told.clone())).max_pending_messages(2)).await;

    let id = send(&producer, "first").await;
    assert_eq!(told.until("after ", 2).await, [format!("a first {id}"), format!("b first {id}")]);
    assert_eq!(told.of("before "), ["a first", "b first"]);
    let message = receive(&mut consumer).await;
    assert_eq!(message.properties().collect::<Vec<_>>(), [("a", "seen"), ("b", "seen")]);
    drop(producer.enqueue("never polled"));
    assert_eq!(told.of("before "), ["a first", "b first"], "nothing is done before the first poll");

    let (called, mut outcome) = tokio::sync::oneshot::channel();
    let callback = move |_| called.send(()).expect("awaited");
    let too_large = producer.enqueue_with(vec![b'x'; 6 << 20], callback);
    within("the refusal", too_large).await.expect_err("5 MiB are the limit");
    assert_eq!(
        told.of("after "),
        [
            format!("a first {id}"),
            format!("b first {id}"),
            "a xxxxx MessageTooLarge".into(),
            "b xxxxx MessageTooLarge".into(),
        ]
    );
    assert!(outcome.try_recv().is_err(), "the callback is not called");

    let given_back = loop {
        match producer.try_enqueue("room?") {
            Ok(pending) => drop(pending),
            Err(TryEnqueueError::Full { message, .. }) => break message,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(*given_back, Message::new("room?"), "as it was");
    within("the flush", producer.flush()).await.expect("stored");
}

/// Before each is given, once, in whatever form it comes; then what becomes of it.
pub async fn messages_that_are_received(target: &Target) {
    let (client, told) = (target.client().await, Told::default());
    let topic = target.topic("intercepted");
    let builder = client.consumer(&topic, "s").subscription_type(SubscriptionType::Shared);
    let builder = builder.negative_ack_redelivery_delay(Duration::from_millis(100)).ack_timeout(Duration::from_secs(1));
    let builder = builder.dead_letter_policy(DeadLetterPolicy::new(1));
    let builder = builder.intercept(Named("a", told.clone())).intercept(Broken).intercept(Named("b", told.clone()));
    let mut consumer = subscribed(builder).await;
    let single = created(client.producer(&topic).batching(false)).await;
    send_all(&single, ["1", "2"]).await;
    send_all(&created(client.producer(&topic)).await, ["3", "4"]).await;

    let mut messages = vec![receive(&mut consumer).await];
    while messages.len() < 4 {
        messages.extend(within("more", consumer.receive_many(2)).await.expect("open"));
    }
    let each = |text: &str| [format!("a {text}"), format!("b {text}")];
    assert_eq!(told.of("consume "), ["1", "2", "3", "4"].map(each).concat());

    // The first is given up after its second delivery, the second one is left to the timeout, the others are done.
    consumer.nack(&messages[0]).expect("noted");
    within("the acknowledgement", acked(target, &consumer, &messages[2])).await.expect("acknowledged");
    consumer.acker().ack_id(&messages[3].id()).expect("acknowledged");
    let ids: Vec<_> = messages.iter().map(ReceivedMessage::id).collect();
    let id = |name: &str, at: usize| format!("{name} {} Ok(())", ids[at]);
    assert_eq!(told.of("ack "), [id("a", 2), id("b", 2), id("a", 3), id("b", 3)]);

    let again = receive(&mut consumer).await;
    assert_eq!(again.to_string_lossy(), "1");
    consumer.nack(&again).expect("noted");
    let timed_out = receive(&mut consumer).await;
    assert_eq!(timed_out.to_string_lossy(), "2");
    consumer.ack(&timed_out).expect("acknowledged");
    assert_eq!(told.of("timeout "), ["a", "b"].map(|name| format!("{name} {:?}", [&ids[1]])));
    let nack = ["a", "b"].map(|name| format!("{name} {:?}", [&ids[0]]));
    let all_told = async {
        tokio::select! {
            told = told.until("ack a", 4) => assert!(told.contains(&format!(" {} Ok(())", ids[0])), "the dead letter: {told:?}"),
            message = consumer.receive() => panic!("{message:?}"),
        }
        Ok::<_, Error>(())
    };
    within("the dead letter", all_told).await.expect("told");
    assert_eq!(told.of("nack "), [nack.clone(), nack].concat());
    assert_eq!(told.of("consume a"), [" 1", " 2", " 3", " 4", " 1", " 2"], "none for the dead letter");

    within("the close", consumer.close()).await.expect("closed");
    consumer.ack(&messages[3]).expect_err("closed");
    assert_eq!(told.of("ack b").last(), Some(&format!(" {} Err(Closed)", ids[3])));
}

/// Where messages are read in order.
pub async fn cumulative_acknowledgements(target: &Target) {
    let (client, told) = (target.client().await, Told::default());
    let topic = target.topic("intercepted");
    let builder = client.consumer(&topic, "s").intercept(Named("a", told.clone()));
    let mut consumer = subscribed(builder).await;
    send_all(&created(client.producer(&topic)).await, ["1", "2", "3"]).await;
    let messages = receive_all(&mut consumer, 3).await;
    consumer.ack_cumulative(&messages[1]).expect("acknowledged");
    consumer.ack_cumulative_id(&messages[2].id()).expect("acknowledged");
    assert_eq!(told.of("cumulative a "), [1, 2].map(|at: usize| format!("{} Ok(())", messages[at].id())));
    assert_eq!(told.of("ack "), [""; 0]);
    drained(target, &topic, "s").await;
}

/// Confirmed, where the broker can.
async fn acked(target: &Target, consumer: &Consumer, message: &ReceivedMessage) -> Result<(), Error> {
    match target.offers(super::target::Offer::AckReceipts) {
        true => consumer.ack_confirmed(message).await,
        false => consumer.ack(message),
    }
}
