//! What a message in chunks takes: itself, and two chunks on either side.

use pulsar_native::{Consumer, Producer};

use super::*;

const MIB: usize = 1024 * 1024;
const CHUNK_BYTES: usize = 5 * MIB;

/// What the test's own broker has of chunks on their way: the frame that it reads and the one that it writes, each with room to
/// grow, and what its end of the pipe holds.
const BROKER_BYTES: usize = 6 * CHUNK_BYTES;

/// `LARGE_MESSAGE_MIB=1024` sends one GiB.
fn message_bytes() -> usize {
    std::env::var("LARGE_MESSAGE_MIB").ok().and_then(|mib| mib.parse().ok()).unwrap_or(64) * MIB
}

/// Polls `work` to its end; the most bytes that were allocated between two polls.
async fn peak_of<T>(work: impl Future<Output = T>) -> (T, usize) {
    let mut work = std::pin::pin!(work);
    let mut peak = 0;
    let done = std::future::poll_fn(|cx| {
        let polled = work.as_mut().poll(cx);
        peak = peak.max(held());
        // Also in each round in which only the connection has something to do.
        cx.waker().wake_by_ref();
        polled
    });
    (done.await, peak)
}

async fn consumer(client: &Client) -> Consumer {
    let builder =
        client.consumer(TOPIC, "s").max_chunked_message_size(2047 * MIB).max_pending_chunked_bytes(2047 * MIB);
    builder.subscribe().await.expect("a consumer")
}

async fn producer(client: &Client) -> Producer {
    let builder = client.producer(TOPIC).batching(false).chunking(true).send_timeout(Duration::from_secs(600));
    builder.chunk_max_message_size(CHUNK_BYTES as u32).create().await.expect("a producer")
}

/// Checks the most bytes that were held meanwhile: the message, the copy that the broker stores, and not much more.
fn check(what: &str, held: usize, size: usize) {
    let more = held.saturating_sub(2 * size);
    println!("{size} bytes: {what} took {} MiB more than the message and its stored copy", more / MIB);
    assert!(more < 2 * CHUNK_BYTES + BROKER_BYTES, "{what} took {more} bytes more");
}

#[test]
fn a_large_message_takes_itself_and_two_chunks_on_either_side() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let size = message_bytes();
        let broker = EmbeddedBroker::builder()
            .max_message_size(CHUNK_BYTES as u32 + 64 * 1024)
            .max_stored_bytes(2 * size)
            .start()
            .await;
        let broker = broker.expect("a free port");
        let client = Client::builder(broker.url()).dialer(InMemory(broker.clone())).memory_limit(0).connect();
        let client = client.await.expect("a client");
        // It gets the message once that is stored.
        consumer(&client).await.close().await.expect("closed");
        let producer = producer(&client).await;
        let before = held();

        let payload = vec![7u8; size];
        let (sent, sending) = peak_of(producer.send(payload)).await;
        sent.expect("stored");
        let stored = held().saturating_sub(before);
        assert!(stored < size + BROKER_BYTES, "the broker has {stored} bytes of {size}");
        check("sending", sending - before, size);

        let mut consumer = consumer(&client).await;
        let (received, receiving) = peak_of(consumer.receive()).await;
        let message = received.expect("a message");
        assert!(message.payload().len() == size && message.payload().iter().all(|&byte| byte == 7));
        check("receiving", receiving - before, size);
        consumer.ack(&message).expect("acknowledged");
        drop(message);
        client.close().await.expect("closed");
        broker.stop().await;
    });
}
