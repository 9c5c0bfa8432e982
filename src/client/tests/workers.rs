//! Work whose output panics when it becomes an [`Outcome`].

use std::sync::{Arc, Mutex};

use super::*;
use crate::Message;
use crate::client::workers::Outcome;

/// Acknowledges, unless it panics.
struct Fragile {
    panics: bool,
}

impl From<Fragile> for Outcome {
    fn from(output: Fragile) -> Self {
        assert!(!output.panics, "this panic is part of the test");
        Self::Ack
    }
}

/// The first delivery of each message panics.
fn work(worked: &Arc<Mutex<Vec<String>>>) -> impl Fn(ReceivedMessage) -> std::future::Ready<Fragile> + use<> {
    let worked = worked.clone();
    move |message| {
        let text = message.to_string_lossy().into_owned();
        let mut worked = worked.lock().expect("no panic");
        let panics = !worked.contains(&text);
        worked.push(text);
        std::future::ready(Fragile { panics })
    }
}

#[tokio::test(start_paused = true)]
async fn an_output_that_panics_is_work_that_failed() {
    for by_key in [false, true] {
        let (broker, client) = stage().await;
        let mut consumer = consumer(&client, "t", 10).await;
        let producer = producer(&client, "t").await;
        for number in 0..3 {
            let message = Message::new(number.to_string()).with_key("the same");
            within("a receipt", producer.send(message)).await.expect("stored");
        }
        let worked = Arc::default();
        let work = work(&worked);
        let processing = tokio::spawn(async move {
            match by_key {
                true => consumer.process_by_key(2, work).await,
                false => consumer.process(2, work).await,
            }
        });
        until("all to be acknowledged", || backlog(&broker, "t") == 0).await;
        let mut worked = worked.lock().expect("no panic").clone();
        worked.sort();
        assert_eq!(worked, ["0", "0", "1", "1", "2", "2"], "by key: {by_key}");
        processing.abort();
    }
}
