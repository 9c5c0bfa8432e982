//! The producer's handle: it routes a message to an endpoint and pushes it there.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::routing::Router;
use super::{Shared, clock};
use crate::error::{Error, ErrorKind, Result, SendError};
use crate::id::MessageId;
use crate::machine::producer::results::{PendingSend, SendCallback};
use crate::machine::producer::{CapacityWaiter, Message, Producer as Machine, PushError};
use crate::machine::{Deferred, Endpoint, Reply};

/// Publishes messages to one topic. Clones share it.
///
/// A partitioned topic is one producer: a message goes to the partition of its key, or round the partitions without
/// one. Order holds within a partition.
///
/// When the last clone is dropped, what was accepted is still sent, within the send timeout, then the producer is
/// closed at the broker. [`Self::close`] does the same and waits.
#[derive(Clone)]
pub struct Producer {
    shared: Arc<Handle>,
}

struct Handle {
    endpoints: Vec<Arc<Endpoint<Machine>>>,
    router: Router,
    topic: Arc<str>,
    /// Keeps the tasks alive that carry out what the endpoints decide.
    _client: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut deferred = Deferred::new();
        for endpoint in &self.endpoints {
            endpoint.with(&mut deferred, |producer, deferred| producer.close(None, clock::now(), deferred));
        }
    }
}

impl Producer {
    pub(super) fn new(client: Arc<Shared>, topic: Arc<str>, router: Router) -> Self {
        Self { shared: Arc::new(Handle { endpoints: Vec::new(), router, topic, _client: client }) }
    }

    /// Adds a partition, before the handle is given out.
    pub(super) fn add(&mut self, endpoint: Arc<Endpoint<Machine>>) {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.endpoints.push(endpoint);
        }
    }

    /// Publishes one message and waits until the broker has stored it (SEND, SEND_RECEIPT).
    ///
    /// To publish many, [`Self::enqueue`] them and wait afterwards: then they travel together.
    ///
    /// ```no_run
    /// # async fn example(producer: pulsar_native::Producer) -> Result<(), pulsar_native::Error> {
    /// use pulsar_native::Message;
    ///
    /// let id = producer.send(Message::new("hello").property("k", "v").key("order-7")).await?;
    /// println!("stored as {id}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What kept the message from being confirmed, and whether it may be stored all the same: refused by the broker,
    /// too large, not confirmed within the send timeout, the producer closed.
    ///
    /// # Cancel safety
    /// Dropped while it waits for room, the message is not sent. Dropped after that, it is sent and the outcome is
    /// forgotten.
    pub async fn send(&self, message: impl Into<Message> + Send) -> Result<MessageId, SendError> {
        self.enqueue(message).await?.await
    }

    /// Accepts one message and gives its outcome as a future; waits only for room among the pending messages.
    ///
    /// # Errors
    /// The message is refused at once: too large, closed, or no room within the send timeout, which counts from
    /// when the future is first polled.
    ///
    /// # Cancel safety
    /// Dropped before it ends, the message is not sent.
    #[inline(always)]
    pub fn enqueue(&self, message: impl Into<Message>) -> impl Future<Output = Result<PendingSend, SendError>> + Send {
        self.accept(message.into(), None)
    }

    /// Accepts one message and calls `callback` with its outcome; waits only for room.
    ///
    /// The callback runs on a connection's task with no lock held. It may send; it must not block, or it delays that
    /// connection. A panic in it harms nothing else.
    ///
    /// # Errors
    /// As of [`Self::enqueue`]; then the callback is not called.
    ///
    /// # Cancel safety
    /// Dropped before it ends, the message is not sent and the callback is not called.
    pub async fn enqueue_with<F>(&self, message: impl Into<Message> + Send, callback: F) -> Result<(), SendError>
    where
        F: FnOnce(Result<MessageId, SendError>) + Send + 'static,
    {
        self.accept(message.into(), Some(Box::new(callback))).await.map(drop)
    }

    /// Accepts one message if there is room, else gives it back. Works from any thread.
    ///
    /// # Errors
    /// [`TryEnqueueError::Full`] with the message when there is no room; [`TryEnqueueError::Refused`] when it cannot
    /// be sent at all.
    pub fn try_enqueue(&self, message: impl Into<Message>) -> Result<PendingSend, TryEnqueueError> {
        let message = message.into();
        let endpoint = self.route(&message);
        let pushed = with_seal(endpoint, |producer, _| producer.push(message, None, clock::now));
        pushed.map_err(|error| match error {
            PushError::Full(rejected) => TryEnqueueError::Full(Box::new(rejected.message)),
            PushError::Refused(error, _) => TryEnqueueError::Refused(error),
        })
    }

    #[inline]
    fn route(&self, message: &Message) -> &Arc<Endpoint<Machine>> {
        let endpoints = &self.shared.endpoints;
        &endpoints[self.shared.router.partition(message, endpoints.len())]
    }

    /// Inlined whatever its size: else the message is moved once more, through memory.
    #[inline(always)]
    fn accept(&self, message: Message, callback: Option<SendCallback>) -> Accept<'_> {
        let endpoint = self.route(&message);
        Accept { endpoint, message: Some(message), callback, ticket: CapacityWaiter::default() }
    }

    /// Waits until everything accepted before this call is settled; sends an open batch at once.
    ///
    /// # Errors
    /// The first failure among the messages since the last flush.
    ///
    /// # Cancel safety
    /// Dropping the future stops the waiting and nothing else.
    pub async fn flush(&self) -> Result<()> {
        let replies = self.ask_each(|producer, reply, deferred| producer.flush(reply, deferred));
        all(replies).await
    }

    /// Sends what was accepted, closes the producer at the broker (CLOSE_PRODUCER) and waits for the answer. Further
    /// sends, by any clone, are refused.
    ///
    /// # Errors
    /// No answer within the operation timeout. The producer is over all the same.
    ///
    /// # Cancel safety
    /// The close goes on when the future is dropped.
    pub async fn close(&self) -> Result<()> {
        let replies = self.ask_each(|producer, reply, deferred| producer.close(Some(reply), clock::now(), deferred));
        all(replies).await
    }

    fn ask_each(&self, ask: impl Fn(&mut Machine, crate::machine::ReplyTo<()>, &mut Deferred)) -> Vec<Reply<()>> {
        let mut deferred = Deferred::new();
        let mut replies = Vec::new();
        for endpoint in &self.shared.endpoints {
            let (to, reply) = Reply::pair();
            endpoint.with(&mut deferred, |producer, deferred| ask(producer, to, deferred));
            replies.push(reply);
        }
        replies
    }

    /// The full name of the topic it was made for.
    pub fn topic(&self) -> &str {
        &self.shared.topic
    }

    /// The producer's name: the one that was chosen, or the broker's choice.
    pub fn name(&self) -> String {
        let name = |endpoint: &Arc<Endpoint<Machine>>| {
            endpoint.with(&mut Deferred::new(), |producer, _| producer.name().map(str::to_owned))
        };
        self.shared.endpoints.first().and_then(name).unwrap_or_default()
    }

    /// The highest sequence id known to be stored: by receipts, or at the start by the broker's deduplication. Of a
    /// partitioned topic, the highest of all partitions.
    pub fn last_sequence_id(&self) -> Option<u64> {
        let last = |endpoint: &Arc<Endpoint<Machine>>| {
            endpoint.with(&mut Deferred::new(), |producer, _| producer.last_sequence_id())
        };
        self.shared.endpoints.iter().filter_map(last).max()
    }

    /// Whether every part of it is attached to a broker at the moment. Sending works either way.
    pub fn is_connected(&self) -> bool {
        let attached = |endpoint: &Arc<Endpoint<Machine>>| {
            endpoint.with(&mut Deferred::new(), |producer, _| producer.is_attached())
        };
        self.shared.endpoints.iter().all(attached)
    }

    /// How many partitions it sends to: 1 for a topic that is not partitioned.
    pub fn partitions(&self) -> usize {
        self.shared.endpoints.len()
    }
}

async fn all(replies: Vec<Reply<()>>) -> Result<()> {
    let mut result = Ok(());
    for reply in replies {
        result = result.and(reply.await);
    }
    result
}

/// Works on the machine; if that closed a batch, seals it here, between two locks.
#[inline]
fn with_seal<R>(endpoint: &Endpoint<Machine>, work: impl FnOnce(&mut Machine, &mut Deferred) -> R) -> R {
    let mut deferred = Deferred::new();
    let (result, closed) = endpoint.with(&mut deferred, |producer, deferred| {
        let result = work(producer, deferred);
        (result, producer.has_closed_job())
    });
    if closed {
        seal_closed(endpoint, &mut deferred);
    }
    result
}

fn seal_closed(endpoint: &Endpoint<Machine>, deferred: &mut Deferred) {
    let mut job = endpoint.with(deferred, |producer, _| producer.take_closed_job(clock::now));
    while let Some(sealing) = job {
        let sealed = sealing.run();
        job = endpoint.with(deferred, |producer, deferred| {
            producer.put_job(sealed, clock::now(), deferred);
            producer.take_closed_job(clock::now)
        });
    }
}

/// Waits for room, then pushes.
struct Accept<'a> {
    endpoint: &'a Endpoint<Machine>,
    message: Option<Message>,
    callback: Option<SendCallback>,
    ticket: CapacityWaiter,
}

impl Accept<'_> {
    /// The usual case: nothing to wait for. Apart from the rest, and with a result that fits registers, because
    /// everything that is moved through memory shows in the cost of a message.
    #[inline(never)]
    fn at_once(&mut self) -> Option<PendingSend> {
        let Self { endpoint, message, callback, .. } = self;
        let (pending, closed) = endpoint.with_only(|producer| {
            let pending = producer.push_fast(message, callback, clock::now);
            (pending, producer.has_closed_job())
        });
        if closed {
            seal_closed(endpoint, &mut Deferred::new());
        }
        pending
    }

    #[cold]
    fn in_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<PendingSend, SendError>> {
        let Self { endpoint, message, callback, ticket } = self;
        with_seal(endpoint, |producer, deferred| {
            producer.poll_push(ticket, message, callback, cx.waker(), clock::now, deferred)
        })
    }
}

impl Future for Accept<'_> {
    type Output = Result<PendingSend, SendError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.ticket.is_waiting() {
            if let Some(pending) = self.at_once() {
                return Poll::Ready(Ok(pending));
            }
        }
        self.in_turn(cx)
    }
}

impl Drop for Accept<'_> {
    /// A task that stops waiting passes its turn on.
    #[inline]
    fn drop(&mut self) {
        if self.ticket.is_waiting() {
            let ticket = &mut self.ticket;
            self.endpoint.with(&mut Deferred::new(), |producer, deferred| producer.stop_waiting(ticket, deferred));
        }
    }
}

/// Why [`Producer::try_enqueue`] did not accept a message.
#[derive(Debug)]
pub enum TryEnqueueError {
    /// There is no room; the message comes back.
    Full(Box<Message>),
    /// The message cannot be sent.
    Refused(SendError),
}

impl fmt::Display for TryEnqueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("no room among the pending messages; wait for some of them"),
            Self::Refused(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for TryEnqueueError {}

impl From<TryEnqueueError> for Error {
    fn from(error: TryEnqueueError) -> Self {
        match error {
            TryEnqueueError::Full(_) => Self::local(ErrorKind::QueueFull, error.to_string()),
            TryEnqueueError::Refused(error) => error.into(),
        }
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Producer({})", self.shared.topic)
    }
}
