//! Load while tokens expire, and how long it stood still: for a broker of any kind and its identity provider.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pulsar_native::client::{AuthContext, Authentication, CredentialsFuture};
use pulsar_native::{Client, Consumer, OAuth2, Producer};

use tokio::sync::watch;

use super::within::{messages_meanwhile, within_time};

/// How long one message may take to come back, and one request.
const PATIENCE: Duration = Duration::from_secs(60);
/// A gap that the scheduler of a busy machine makes by itself: of control stretches that are shorter than that, the longest
/// is chance.
const GAP_FLOOR: Duration = Duration::from_millis(100);
/// Counts the requests for credentials. One on AUTH_CHALLENGE is completed after some messages of the [`Load`]:
/// [`messages_meanwhile`].
#[derive(Clone)]
pub(crate) struct Counted {
    source: OAuth2,
    dials: Arc<AtomicUsize>,
    challenges: Arc<AtomicUsize>,
    /// Messages of the load.
    moved: watch::Sender<u64>,
}

impl Counted {
    pub(crate) fn new(source: OAuth2) -> Self {
        Self { source, dials: Arc::default(), challenges: Arc::default(), moved: watch::Sender::new(0) }
    }

    /// For connections.
    pub(crate) fn dials(&self) -> usize {
        self.dials.load(Ordering::SeqCst)
    }

    /// For tokens that have expired on open connections.
    pub(crate) fn challenges(&self) -> usize {
        self.challenges.load(Ordering::SeqCst)
    }
}

impl Authentication for Counted {
    fn credentials<'a>(&'a self, context: &'a AuthContext) -> CredentialsFuture<'a> {
        Box::pin(async {
            if context.challenge().is_some() {
                messages_meanwhile(&self.moved).await;
                self.challenges.fetch_add(1, Ordering::SeqCst);
            } else {
                self.dials.fetch_add(1, Ordering::SeqCst);
            }
            self.source.credentials(context).await
        })
    }
}

/// A producer and a consumer of one topic, on one connection.
pub(crate) struct Load {
    producer: Producer,
    consumer: Consumer,
    sent: u64,
    moved: Option<watch::Sender<u64>>,
}

impl Load {
    pub(crate) async fn start(client: &Client, topic: &str) -> Self {
        let consumer = within_time(PATIENCE, "the consumer", client.consumer(topic, "load").subscribe()).await;
        let producer = within_time(PATIENCE, "the producer", client.producer(topic).create()).await;
        Self { producer: producer.expect("a producer"), consumer: consumer.expect("a consumer"), sent: 0, moved: None }
    }

    /// Counts its messages for `source`, that of its client.
    pub(crate) fn with_source(self, source: &Counted) -> Self {
        Self { moved: Some(source.moved.clone()), ..self }
    }

    /// One message after the other, each received and acknowledged, until `is_done`; the longest that one took, and how
    /// many there were.
    pub(crate) async fn run(&mut self, is_done: impl Fn() -> bool) -> (Duration, u64) {
        let (mut longest, first, begun) = (Duration::ZERO, self.sent, Instant::now());
        while !is_done() {
            assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for what ends the load");
            let text = self.sent.to_string();
            let started = Instant::now();
            within_time(PATIENCE, "a receipt", self.producer.send(&*text)).await.expect("stored");
            let message = within_time(PATIENCE, "the message", self.consumer.receive()).await.expect("a message");
            assert_eq!(message.to_string_lossy(), text, "none is lost, doubled or out of order");
            self.consumer.ack(&message).expect("noted");
            longest = longest.max(started.elapsed());
            self.sent += 1;
            if let Some(moved) = &self.moved {
                moved.send_replace(self.sent);
            }
        }
        (longest, self.sent - first)
    }

    /// The same for so long.
    pub(crate) async fn run_for(&mut self, time: Duration) -> (Duration, u64) {
        let started = Instant::now();
        self.run(|| started.elapsed() >= time).await
    }
}

/// No gap is longer than twice the longest of the control stretch, or [`GAP_FLOOR`] if that is more: less than an answer
/// to a challenge takes.
pub(crate) fn assert_no_gap(under_expiries: Duration, control: Duration) {
    let most = control.max(GAP_FLOOR) * 2;
    assert!(under_expiries <= most, "{under_expiries:?} without a message, and {control:?} where no token expired");
}
