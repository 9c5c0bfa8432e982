//! What waits of a thousand topics, for an application that receives nothing, stays within the limit for it and what
//! `docs/memory.md` adds to that.

use pulsar_native::Topics;

use super::*;
use crate::common::within::look_until;

const TOPICS: usize = 1000;
/// Of each topic.
const ENTRIES: usize = 10;
const ENTRY_BYTES: usize = 4096;
/// What client and broker need for a topic, its subscription and its consumer.
const TOPIC_BYTES_MAX: usize = 20 * 1024;
/// Metadata of an entry, and what its frame adds.
const HEADERS_MAX: usize = 200;

fn topic(number: usize) -> String {
    format!("persistent://public/default/t-{number:04}")
}

async fn client(broker: &EmbeddedBroker, limit: usize) -> Client {
    let builder = Client::builder(broker.url()).dialer(InMemory(broker.clone())).receive_memory_limit(limit);
    builder.connect().await.expect("a client")
}

async fn fill(broker: &EmbeddedBroker, topics: std::ops::Range<usize>) {
    let client = client(broker, 0).await;
    for number in topics {
        let producer = client.producer(topic(number)).batching(false).create().await.expect("a producer");
        for _ in 0..ENTRIES {
            producer.send(vec![7; ENTRY_BYTES]).await.expect("stored");
        }
        producer.close().await.expect("closed");
    }
    client.close().await.expect("closed");
}

/// Bytes of entries that wait, once no more may come, and all that was allocated for half of the topics, which came later than
/// the others.
async fn waiting(limit: usize) -> (usize, usize) {
    let broker = EmbeddedBroker::builder().start().await.expect("a free port");
    fill(&broker, 0..TOPICS / 2).await;
    let client = client(&broker, limit).await;
    let builder = client.consumer(Topics::pattern("t-.*"), "s").initial_position(InitialPosition::Earliest);
    let consumer = builder.subscribe().await.expect("a consumer");
    let at_rest = |topics: usize| {
        let (state, stats) = (consumer.state(), consumer.stats());
        let is_attached = state.parts.len() == topics && state.is_attached();
        is_attached && stats.available_permits == 0 && stats.received_entries >= topics as u64
    };
    seen("the topics of the start", || at_rest(TOPICS / 2)).await;
    let without = held();
    fill(&broker, TOPICS / 2..TOPICS).await;
    seen("those that come", || at_rest(TOPICS)).await;
    let (bytes, grown) = (consumer.stats().received_bytes as usize, held() - without);
    // What the broker has of them is no memory of the client.
    let grown = grown.saturating_sub(TOPICS / 2 * ENTRIES * ENTRY_BYTES);
    client.close().await.expect("closed");
    broker.stop().await;
    (bytes, grown)
}

async fn seen(what: &str, condition: impl Fn() -> bool) {
    let is_so =
        look_until(VIRTUAL_WAIT_TIMEOUT, Duration::from_millis(20), || std::future::ready(condition()), |is_so| *is_so)
            .await;
    assert!(is_so.is_ok(), "waited {VIRTUAL_WAIT_TIMEOUT:?} for {what}");
}

#[test]
fn a_thousand_topics_wait_within_the_memory_limit() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // A share of it is less than an entry, or two of them.
    for limit in [2 << 20, 9 << 20] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (bytes, grown) = runtime.block_on(waiting(limit));
        let least = TOPICS * (ENTRY_BYTES + HEADERS_MAX);
        assert!(bytes >= (TOPICS * ENTRY_BYTES).max(limit / 2), "{bytes} of {limit}: each has its least permit");
        assert!(bytes <= limit + least, "{bytes} bytes wait with a limit of {limit}");
        let allowed = limit + least + TOPICS / 2 * TOPIC_BYTES_MAX;
        assert!(grown <= allowed, "{grown} bytes were allocated with a limit of {limit}");
    }
}
