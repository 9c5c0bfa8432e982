//! What the messages of many producers take is within the memory limit and what `docs/memory.md` adds to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const MIB: usize = 1024 * 1024;
const LIMIT: usize = 8 * MIB;
const PRODUCERS: usize = 100;

/// The broker keeps nothing of what is sent there.
const TOPIC: &str = "non-persistent://public/default/large";

/// What the test's own broker has of messages on their way: the frame that it reads, and what its end of the pipe holds.
const BROKER_BYTES: usize = 3 * MIB;

/// Payloads that wait for memory: those are still the application's.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// The most bytes that were allocated at any time while `work` ran, without the payloads that waited.
async fn peak_of(work: impl Future<Output = ()> + 'static) -> usize {
    let is_over = Arc::new(AtomicUsize::new(0));
    let over = is_over.clone();
    let working = tokio::task::spawn_local(async move {
        work.await;
        over.store(1, Ordering::Relaxed);
    });
    let mut peak = 0;
    // Once in each round of the runtime.
    while is_over.load(Ordering::Relaxed) == 0 {
        peak = peak.max(held().saturating_sub(WAITING.load(Ordering::Relaxed) * MIB));
        tokio::task::yield_now().await;
    }
    working.await.expect("no panic");
    peak
}

/// One MiB that compresses, so that each stage of a send has its own copy.
async fn send(producer: &pulsar_native::Producer) -> pulsar_native::PendingSend {
    WAITING.fetch_add(1, Ordering::Relaxed);
    let pending = producer.enqueue(vec![7; MIB]).await;
    WAITING.fetch_sub(1, Ordering::Relaxed);
    pending.expect("accepted")
}

/// Peak bytes over what was allocated before, with this limit.
fn peak_with(limit: usize) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let broker = EmbeddedBroker::builder().start().await.expect("a free port");
        let client = Client::builder(broker.url()).dialer(InMemory(broker.clone())).memory_limit(limit).connect();
        let client = client.await.expect("a client");
        let mut producers = Vec::new();
        for _ in 0..PRODUCERS {
            producers.push(client.producer(TOPIC).create().await.expect("a producer"));
        }
        let before = held();
        let peak = peak_of(async move {
            let sends = producers.into_iter().map(|producer| {
                tokio::task::spawn_local(async move {
                    for _ in 0..2 {
                        send(&producer).await.await.expect("sent");
                    }
                })
            });
            for one in sends.collect::<Vec<_>>() {
                within_time(VIRTUAL_WAIT_TIMEOUT, "the receipts", one).await.expect("no panic");
            }
        });
        let peak = peak.await.saturating_sub(before);
        assert_eq!(client.memory_usage().used, 0);
        client.close().await.expect("closed");
        broker.stop().await;
        peak
    })
}

#[test]
fn a_hundred_producers_of_large_messages_stay_within_the_memory_limit() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let peak = peak_with(LIMIT);
    // A quarter for buffers that are used again, 2 MiB for the connection.
    let allowed = LIMIT + LIMIT / 4 + 2 * MIB + BROKER_BYTES;
    assert!((LIMIT / 2..allowed).contains(&peak), "{peak} bytes with a limit of {LIMIT}");
    // The measurement finds what no limit holds.
    let peak = peak_with(0);
    assert!(peak > 90 * MIB, "{peak} bytes without a limit");
}
