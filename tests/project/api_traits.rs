//! What the compiler promises about the handles: they cross tasks and threads, and so do all their futures.
//!
//! Nothing here runs; a change that breaks it does not compile.

use std::time::Duration;

use pulsar_native::client::{AuthContext, Authentication};
use pulsar_native::{
    Acker, Client, ClientBuilder, Consumer, ConsumerBuilder, ConsumerEvent, ConsumerEvents, Error, Message, MessageId,
    Outcome, PendingSend, Producer, ProducerBuilder, ReceivedMessage, SeekTo, SendError, TableView, Token,
};

fn handle<T: Clone + Send + Sync + 'static>() {}
fn owned<T: Send + 'static>() {}
fn shared<T: Send + Sync + 'static>() {}
fn future<T: Send>(_: T) {}

#[test]
fn handles_cross_threads() {
    handle::<Client>();
    handle::<Producer>();
    handle::<Acker>();
    handle::<TableView>();
    handle::<ReceivedMessage>();
    handle::<Message>();
    handle::<MessageId>();
    handle::<Token>();
    handle::<ProducerBuilder>();
    handle::<ConsumerBuilder>();
    shared::<Error>();
    shared::<SendError>();
    shared::<ConsumerEvent>();
    owned::<Consumer>();
    owned::<ConsumerEvents>();
    owned::<ClientBuilder>();
    owned::<PendingSend>();
}

#[allow(dead_code, reason = "compiled, never called")]
fn futures_cross_threads(client: &Client, producer: &Producer, acker: &Acker, message: &ReceivedMessage) {
    future(Client::builder("").authentication(Token::new("")).connect());
    future(client.close());
    future(client.partitions(""));
    future(client.producer("").batching_max_publish_delay(Duration::ZERO).create());
    future(client.consumer("", "").subscribe());
    future(producer.send("x"));
    future(producer.enqueue(Message::new("x")));
    future(producer.enqueue_with("x", |_| ()));
    future(producer.flush());
    future(producer.close());
    future(acker.ack_confirmed(message));
    future(acker.ack_cumulative_confirmed(message));
    future(acker.ack_id_confirmed(&message.id()));
    future(acker.ack_cumulative_id_confirmed(&message.id()));
    future(acker.ack_ids_confirmed(&[message.id()]));
}

#[allow(dead_code, reason = "compiled, never called")]
fn futures_of_a_consumer_cross_threads(mut consumer: Consumer, other: Consumer, message: &ReceivedMessage) {
    future(consumer.receive());
    future(consumer.receive_many(1));
    future(consumer.ack_confirmed(message));
    future(consumer.stats());
    future(consumer.last_message_ids());
    future(consumer.seek(SeekTo::Earliest));
    future(consumer.process(1, |_| async {}));
    future(consumer.process_by_key(1, |_| async { Outcome::Keep }));
    future(consumer.unsubscribe());
    future(consumer.force_unsubscribe());
    future(consumer.events().recv());
    future(other.close());
}

#[allow(dead_code, reason = "compiled, never called")]
fn futures_of_credentials_cross_threads(token: &Token, context: &AuthContext) {
    future(token.credentials(context));
    future(token.http_headers(context));
}
