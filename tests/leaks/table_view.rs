//! What the entries of a table view take, and that nothing of them stays.

use std::sync::Arc;

use pulsar_native::{Message, Producer};

use super::*;

const ENTRIES: usize = 100_000;

/// More than the bytes of its key and value: the figure in the documentation of `TableView`.
const ENTRY_BYTES_MAX: usize = 160;

async fn send_each(producer: &Producer, count: usize, message: impl Fn(usize) -> Message) {
    for number in 0..count {
        drop(producer.enqueue(message(number)).await.expect("accepted"));
    }
    producer.flush().await.expect("stored");
}

fn key(number: usize) -> String {
    format!("key-{number:08}")
}

#[test]
fn an_entry_of_a_table_view_takes_a_bounded_number_of_bytes() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let broker = EmbeddedBroker::builder().start().await.expect("a free port");
        let builder = Client::builder(broker.url()).dialer(InMemory(broker.clone())).seed(1);
        let client = builder.connect().await.expect("a client");
        let producer = client.producer(TOPIC).create().await.expect("a producer");
        send_each(&producer, ENTRIES, |number| Message::new(vec![7; 100]).with_key(key(number))).await;
        // What the broker and the pipe to it take for the first reading is theirs.
        drop(client.table_view(TOPIC).create().await.expect("a view"));
        until("it to be gone", || attached(&broker), |left| *left == (1, 0)).await;
        pass(Duration::from_secs(300)).await;
        let before = held();
        let view = client.table_view(TOPIC).create().await.expect("a view");
        assert_eq!(view.len(), ENTRIES);
        pass(Duration::from_secs(300)).await;
        let bytes_each = |what: &str| {
            let each = held().saturating_sub(before) / ENTRIES;
            println!("{each} bytes for each entry {what}");
            each.checked_sub(key(0).len() + 100).unwrap_or_else(|| panic!("{each} bytes {what}"))
        };
        assert!(bytes_each("as read") <= ENTRY_BYTES_MAX);
        // Also once each value was asked for, and each shard copied for a snapshot.
        let snapshot = view.snapshot();
        assert!(snapshot.iter().all(|(key, _)| view.get(key).is_some()));
        send_each(&producer, 1000, |number| Message::new("new").with_key(key(number))).await;
        view.refresh().await.expect("current");
        drop(snapshot);
        assert!(bytes_each("that was asked for") <= ENTRY_BYTES_MAX);
        // What is removed is gone, and a view that is dropped leaves nothing.
        send_each(&producer, ENTRIES, |number| Message::new("").with_key(key(number))).await;
        view.refresh().await.expect("current");
        assert!(view.is_empty());
        let heard = Arc::new(());
        let in_listener = heard.clone();
        let listener = view.listen(move |_, _| drop(in_listener.clone()));
        drop((view, listener));
        until("it to be gone", || attached(&broker), |left| *left == (1, 0)).await;
        assert_eq!(Arc::strong_count(&heard), 1);
    });
}
