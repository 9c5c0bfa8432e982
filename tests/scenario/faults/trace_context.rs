//! W3C trace context: what a producer puts into messages, and what a consumer gets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pulsar_native::TraceContext;

use super::support::*;

fn context(number: usize) -> TraceContext {
    let context = TraceContext::new(format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{number:016x}-01"));
    context.and_then(|context| context.with_tracestate(format!("n={number}"))).expect("valid")
}

#[tokio::test(start_paused = true)]
async fn each_message_without_one_gets_the_present_context() {
    let stage = Stage::new().await;
    let mut consumer = stage.consumer(TOPIC).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    // Of four questions, the third has no answer.
    let current = move || Some(count.fetch_add(1, Ordering::SeqCst) + 1).filter(|asked| *asked != 3).map(context);
    for batching in [false, true] {
        asked.store(0, Ordering::SeqCst);
        let producer = created(stage.client.producer(TOPIC).batching(batching).trace_context(current.clone())).await;
        let mut pending = vec![enqueue(&producer, "1").await];
        pending.push(enqueue(&producer, Message::new("own").with_trace_context(context(77))).await);
        pending.push(enqueue(&producer, Message::new("2").with_property("k", "v")).await);
        pending.push(enqueue(&producer, "none").await);
        pending.push(producer.try_enqueue("4").expect("capacity"));
        confirmed(pending).await;
        let expected = [("1", Some(1)), ("own", Some(77)), ("2", Some(2)), ("none", None), ("4", Some(4))];
        for (text, number) in expected {
            let message = within("a message", consumer.receive()).await.expect("a message");
            assert_eq!((&*message.to_string_lossy(), message.trace_context()), (text, number.map(context)));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 4, "not for the message that has one");
    }
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_source_nothing_is_added() {
    let stage = Stage::new().await;
    let producer = stage.producer(TOPIC).await;
    let mut consumer = stage.consumer(TOPIC).await;
    send(&producer, "plain").await;
    send(&producer, Message::new("of a stranger").with_property("traceparent", "garbage")).await;
    let plain = within("a message", consumer.receive()).await.expect("a message");
    assert_eq!((plain.properties().count(), plain.trace_context()), (0, None));
    let stranger = within("a message", consumer.receive()).await.expect("a message");
    assert_eq!((stranger.property("traceparent"), stranger.trace_context()), (Some("garbage"), None));
    stage.close_and_check().await;
}
