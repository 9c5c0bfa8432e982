//! A producer as a sink of messages.

use std::future::poll_fn;
use std::pin::Pin;

use futures_sink::Sink;

use super::*;

pub async fn messages_go_through_it(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("sink");
    let mut consumer = subscribed(client.consumer(&topic, "s")).await;
    // Room for few: most of them wait for it.
    let producer = created(client.producer(&topic).max_pending_messages(3)).await;
    let mut sink = producer.sink();
    for number in 0..100 {
        let ready = poll_fn(|cx| Sink::<String>::poll_ready(Pin::new(&mut sink), cx));
        within("room", ready).await.expect("nothing has failed");
        Pin::new(&mut sink).start_send(number.to_string()).expect("taken");
    }
    within("the flush", poll_fn(|cx| Sink::<String>::poll_flush(Pin::new(&mut sink), cx))).await.expect("stored");
    assert_eq!(producer.stats().pending_messages, 0);
    assert_eq!(texts(&mut consumer, 100).await, (0..100).map(|number| number.to_string()).collect::<Vec<_>>());
    // What is refused is an error of its own, and the next one is taken.
    let refused = Message::new("x").with_sequence_id(u64::MAX);
    let error = Pin::new(&mut sink).start_send(refused).expect_err("no such sequence id");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    Pin::new(&mut sink).start_send("last").expect("taken");
    within("the close", poll_fn(|cx| Sink::<&str>::poll_close(Pin::new(&mut sink), cx))).await.expect("closed");
    assert_eq!(texts(&mut consumer, 1).await, ["last"]);
    let error = within("the refusal", producer.send("late")).await.expect_err("closed");
    assert_eq!(error.error().kind(), ErrorKind::Closed);
}
