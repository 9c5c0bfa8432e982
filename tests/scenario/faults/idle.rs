//! Who has nothing to do sleeps: between two keep-alive pings nothing wakes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use pulsar_native::client::{DialFuture, Dialer, Socket, Target};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::support::*;

const KEEP_ALIVE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

/// What the driver of a connection asks its socket. Each of its turns tries to read.
#[derive(Default)]
struct Asked {
    reads: AtomicU64,
    writes: AtomicU64,
}

impl Asked {
    fn take(&self) -> (u64, u64) {
        (self.reads.swap(0, Ordering::SeqCst), self.writes.swap(0, Ordering::SeqCst))
    }
}

struct Counting(EmbeddedBroker, Arc<Asked>);

impl Dialer for Counting {
    fn dial<'a>(&'a self, _: &'a Target) -> DialFuture<'a> {
        let counted = Counted(Box::new(self.0.connect()), self.1.clone());
        Box::pin(async { Ok(Box::new(counted) as Box<dyn Socket>) })
    }
}

struct Counted(Box<dyn Socket>, Arc<Asked>);

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.1.reads.fetch_add(1, Ordering::SeqCst);
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.1.writes.fetch_add(1, Ordering::SeqCst);
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.1.writes.fetch_add(1, Ordering::SeqCst);
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// How often the one thread of this test went to sleep.
fn parks() -> u64 {
    tokio::runtime::Handle::current().metrics().worker_park_count(0)
}

/// What an hour costs: reads, writes, and sleeps of the thread.
async fn an_hour(asked: &Asked) -> (u64, u64, u64) {
    asked.take();
    let before = parks();
    pass(HOUR).await;
    let (reads, writes) = asked.take();
    (reads, writes, parks() - before)
}

#[tokio::test(start_paused = true)]
async fn an_idle_client_wakes_for_its_keep_alive_and_for_nothing_else() {
    // A broker that does not ping within the hour, so that the pings are the client's.
    let broker = EmbeddedBroker::builder().keep_alive_interval(100 * HOUR).start().await.expect("a free port");
    let asked = Arc::new(Asked::default());
    let (_, _, alone) = an_hour(&asked).await;
    let builder = Client::builder(broker.url()).dialer(Counting(broker.clone(), asked.clone())).seed(1);
    // Metrics are published by the clock.
    #[cfg(feature = "metrics")]
    let builder = builder.metrics_interval(Duration::ZERO);
    let client = builder.keep_alive_interval(KEEP_ALIVE).connect().await.expect("a client");
    let producer = client.producer(TOPIC).create().await.expect("a producer");
    // Without the watch for stalls, which asks the broker now and then.
    let builder = client.consumer(TOPIC, "s").stall_timeout(Duration::MAX);
    let mut consumer = builder.subscribe().await.expect("a consumer");
    producer.send("x").await.expect("stored");
    let message = consumer.receive().await.expect("a message");
    consumer.ack(&message).expect("acknowledged");
    let receiving = tokio::spawn(async move { consumer.receive().await.map(drop) });
    // The deadlines of what was sent and acknowledged pass.
    pass(2 * KEEP_ALIVE).await;

    let (reads, writes, parks) = an_hour(&asked).await;
    let pings = HOUR.as_secs() / KEEP_ALIVE.as_secs();
    assert!((pings - 1..=pings).contains(&writes), "{writes} writes for {pings} pings");
    // A turn that writes the ping and one that takes the pong, each followed by one that finds nothing more to do, and
    // a read that finds no second pong.
    assert!(reads <= 5 * pings, "{reads} reads for {pings} pings");
    // A timer of tokio's wakes its thread once for each level of the wheel that it comes down, not only when it fires.
    assert!(parks <= alone + 5 * pings, "{parks} sleeps for {pings} pings");

    drop(receiving);
    client.close().await.expect("closed");
    assert!(broker.violations().is_empty(), "{:?}", broker.violations());
    broker.stop().await;
}
