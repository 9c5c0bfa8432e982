//! The producer's handle: routes a message to an endpoint and pushes it there.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::clock;
use super::detour::Detour;
use super::drain::{DrainReport, Limit, drain_producer};
use super::events::ProducerEvents;
use super::growth::AutoUpdate;
use super::parts::all;
use super::producer_shared::ProducerShared;
use super::state::{HandleState, StateWatch};
use crate::error::{Error, ErrorKind, Result, SendError};
use crate::id::MessageId;
use crate::machine::producer::results::{PendingSend, SendCallback};
use crate::machine::producer::{CapacityBound, CapacityWaiter, Message, Producer as Machine, ProducerStats, PushError};
use crate::machine::{Deferred, Endpoint};

/// Publishes messages to one topic. Clones share it.
///
/// One producer serves all partitions of a topic: a message goes to the partition of its key or, without a key, to the
/// partitions in turn. Order holds within a partition. If one partition ends permanently, only the sends to it fail.
///
/// ```no_run
/// # async fn example(client: pulsar_native::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let producer = client.producer("orders").create().await?;
///
/// // One message; the id says where it is stored.
/// let id = producer.send("first").await?;
///
/// // Many: they are accepted in order and sent in batches; `flush` waits for all and reports a failure.
/// for number in 0..1000 {
///     let _sent = producer.enqueue(format!("order {number}")).await?;
/// }
/// producer.flush().await?;
/// # Ok(())
/// # }
/// ```
///
/// When the last clone is dropped, accepted messages are still sent, within the send timeout, then the producer is
/// closed at the broker. [`Self::close`] does that and waits for it.
#[derive(Clone)]
pub struct Producer {
    shared: Arc<ProducerShared>,
}

impl Producer {
    pub(super) fn new(shared: ProducerShared, growth: Option<AutoUpdate>) -> Self {
        let shared = Arc::new(shared);
        shared.client.handles().add_producer(&shared);
        if let Some(auto_update) = growth {
            shared.grow(auto_update);
        }
        Self { shared }
    }

    /// Publishes one message and waits until the broker has stored it (SEND, SEND_RECEIPT).
    ///
    /// To publish many messages, [`Self::enqueue`] them and wait afterwards: then they are sent in batches.
    ///
    /// ```no_run
    /// # async fn example(producer: pulsar_native::Producer) -> Result<(), pulsar_native::Error> {
    /// use pulsar_native::Message;
    ///
    /// let id = producer.send(Message::new("hello").with_property("k", "v").with_key("order-7")).await?;
    /// println!("stored as {id}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Why the message was not confirmed, and whether it may be stored nevertheless: refused by the broker, too large,
    /// not confirmed within the send timeout, the producer closed.
    ///
    /// # Cancel safety
    /// If the future is dropped while it waits for capacity, the message is not sent. If it is dropped after that, the
    /// message is sent and the outcome is lost.
    pub async fn send(&self, message: impl Into<Message> + Send) -> Result<MessageId, SendError> {
        self.enqueue(message).await?.await
    }

    /// Accepts one message and returns its outcome as a future; waits only for capacity among the pending messages. Nothing is done
    /// before the first poll: messages are accepted in the order of the polls.
    ///
    /// # Errors
    /// The message is refused: too large, the producer closed, or no capacity within the send timeout, which counts from
    /// the first poll of the future.
    ///
    /// # Cancel safety
    /// If the future is dropped before it completes, the message is not sent.
    #[inline(always)]
    pub fn enqueue(&self, message: impl Into<Message>) -> impl Future<Output = Result<PendingSend, SendError>> + Send {
        self.accept(message.into(), None)
    }

    /// Accepts one message and calls `callback` with its outcome; waits only for capacity.
    ///
    /// The callback runs on a connection's task with no lock held. It may send; it must not block, or it delays that
    /// connection. A panic in it has no effect on anything else.
    ///
    /// # Errors
    /// Same as [`Self::enqueue`]; then the callback is not called.
    ///
    /// # Cancel safety
    /// If the future is dropped before it completes, the message is not sent and the callback is not called.
    pub async fn enqueue_with<F>(&self, message: impl Into<Message> + Send, callback: F) -> Result<(), SendError>
    where
        F: FnOnce(Result<MessageId, SendError>) + Send + 'static,
    {
        self.accept(message.into(), Some(Box::new(callback))).await.map(drop)
    }

    /// Accepts one message if there is capacity, otherwise returns it. Can be called from any thread.
    ///
    /// # Errors
    /// [`TryEnqueueError::Full`] with the message and the bound that is reached when there is no capacity; [`TryEnqueueError::Refused`] when it
    /// cannot be sent at all.
    pub fn try_enqueue(&self, message: impl Into<Message>) -> Result<PendingSend, TryEnqueueError> {
        let message = message.into();
        match &self.shared.detour {
            None => self.try_push(self.route(&message), message, None).map_err(|error| match error {
                PushError::Full(bound, rejected) => {
                    TryEnqueueError::Full { message: Box::new(rejected.message), bound }
                }
                PushError::Refused(error, _) => TryEnqueueError::Refused(error),
            }),
            Some(detour) => self.try_prepared(detour, message),
        }
    }

    /// The message comes back as it was, so that the hooks see it anew with the next try.
    #[cold]
    fn try_prepared(&self, detour: &Detour, message: Message) -> Result<PendingSend, TryEnqueueError> {
        let (mut prepared, callback) = detour.prepare(&self.shared.topic, message.clone(), None);
        let endpoint = detour.route(&self.shared, &mut prepared);
        self.try_push(endpoint, prepared, callback).map_err(|error| match error {
            PushError::Full(bound, _) => TryEnqueueError::Full { message: Box::new(message), bound },
            PushError::Refused(error, rejected) => {
                if let Some(callback) = rejected.callback {
                    callback.on_refused(&error);
                }
                TryEnqueueError::Refused(error)
            }
        })
    }

    #[inline]
    fn try_push(
        &self,
        endpoint: &Endpoint<Machine>,
        message: Message,
        callback: Option<SendCallback>,
    ) -> Result<PendingSend, PushError> {
        with_seal(endpoint, |producer, _| producer.push(message, callback, clock::now))
    }

    #[inline]
    fn route(&self, message: &Message) -> &Arc<Endpoint<Machine>> {
        self.shared.routes.get(self.shared.partition_of(message))
    }

    /// Always inlined, and without a branch: otherwise the message would be moved once more, through memory.
    #[inline(always)]
    fn accept(&self, message: Message, callback: Option<SendCallback>) -> Accept<'_> {
        let waiter = CapacityWaiter::default();
        Accept { message: Some(message), callback, producer: self, endpoint: None, waiter }
    }

    /// The endpoint that the message goes to, with what is done to it before.
    #[inline]
    fn prepare(
        &self,
        message: &mut Option<Message>,
        callback: &mut Option<SendCallback>,
    ) -> Option<&Endpoint<Machine>> {
        match &self.shared.detour {
            None => Some(self.route(message.as_ref()?)),
            Some(detour) => self.take_detour(detour, message, callback),
        }
    }

    #[cold]
    fn take_detour<'a>(
        &'a self,
        detour: &Detour,
        message: &mut Option<Message>,
        callback: &mut Option<SendCallback>,
    ) -> Option<&'a Endpoint<Machine>> {
        let (mut prepared, prepared_callback) = detour.prepare(&self.shared.topic, message.take()?, callback.take());
        let endpoint = detour.route(&self.shared, &mut prepared);
        (*message, *callback) = (Some(prepared), prepared_callback);
        Some(endpoint)
    }

    /// Waits until every message accepted before this call is confirmed or has failed; sends an open batch at once.
    ///
    /// # Errors
    /// The first failure among the messages since the last flush. A partition that has ended permanently fails the next
    /// flush and no later one, unless all have ended.
    ///
    /// # Cancel safety
    /// Dropping the future stops the waiting and has no other effect.
    pub async fn flush(&self) -> Result<()> {
        let flush = |producer: &mut Machine, reply, deferred: &mut Deferred| {
            producer.flush(reply, deferred);
        };
        let replies = self.shared.parts.ask_those(|part| part.report_end(), flush);
        all(replies.map(|(_, reply)| reply).collect()).await
    }

    /// Sends what was accepted, closes the producer at the broker (CLOSE_PRODUCER) and waits for the answer. Further
    /// sends, by any clone, are refused.
    ///
    /// Accepted messages have the send timeout (without one, the operation timeout) to be stored, counted from this
    /// call; then they fail, each with its own error. The result is that of the close alone: [`Self::flush`] first to
    /// learn whether all messages were stored.
    ///
    /// # Errors
    /// - [`TimedOut`](ErrorKind::TimedOut): CLOSE_PRODUCER was not answered within the operation timeout, or there was no
    ///   connection and accepted messages were not stored in their time.
    /// - The broker's refusal of CLOSE_PRODUCER.
    ///
    /// The producer has ended in either case.
    ///
    /// # Cancel safety
    /// The close continues when the future is dropped.
    pub async fn close(&self) -> Result<()> {
        all(self.shared.parts.close()).await
    }

    /// The orderly end, within `limit`: sends what was accepted, closes the producer as [`Self::close`] does, and says what was
    /// left. Further sends, by any clone, are refused.
    ///
    /// ```no_run
    /// # async fn example(producer: pulsar_native::Producer) {
    /// let report = producer.drain(std::time::Duration::from_secs(10)).await;
    /// println!("{} sends were not confirmed", report.pending_sends);
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// The close continues when the future is dropped, and after the limit.
    pub async fn drain(&self, limit: Duration) -> DrainReport {
        drain_producer(&self.shared, Limit::new(&self.shared.client, limit)).await
    }

    /// The full name of the topic it was created for.
    pub fn topic(&self) -> &str {
        &self.shared.topic
    }

    /// The producer's name: the configured one, or the one that the broker generated.
    pub fn name(&self) -> String {
        let name = |part: Arc<super::parts::Part<Machine>>| part.read(|producer| producer.name().map(str::to_owned));
        self.shared.parts.iter().find_map(name).unwrap_or_default()
    }

    /// The highest sequence id known to be stored: from receipts, or at creation from the broker's deduplication. For a
    /// partitioned topic, the highest of all partitions.
    pub fn last_sequence_id(&self) -> Option<u64> {
        self.shared.parts.iter().filter_map(|part| part.read(Machine::last_sequence_id)).max()
    }

    /// The events of the producer: a partition has ended, messages wait for long. Each event goes to one reader, if there
    /// are several. They end when the producer has ended or was dropped.
    ///
    /// ```no_run
    /// # async fn example(producer: pulsar_native::Producer) {
    /// let mut events = producer.events();
    /// tokio::spawn(async move {
    ///     while let Some(event) = events.recv().await {
    ///         eprintln!("{event:?}");
    ///     }
    /// });
    /// # }
    /// ```
    pub fn events(&self) -> ProducerEvents {
        ProducerEvents::new(self.shared.events.clone())
    }

    /// What this producer has counted since it was created. Costs one lock for each partition.
    pub fn stats(&self) -> ProducerStats {
        self.shared.stats()
    }

    /// Where the topic, or each partition of it, is attached, or why it is not.
    pub fn state(&self) -> HandleState {
        self.shared.parts.state()
    }

    /// [`Self::state`] now and after each change.
    ///
    /// ```no_run
    /// # async fn example(producer: pulsar_native::Producer) {
    /// let mut states = producer.watch_state();
    /// tokio::spawn(async move {
    ///     while let Some(state) = states.changed().await {
    ///         for part in state.detached() {
    ///             eprintln!("{}: {}", part.topic, part.state);
    ///         }
    ///     }
    /// });
    /// # }
    /// ```
    pub fn watch_state(&self) -> StateWatch<HandleState> {
        let shared = Arc::downgrade(&self.shared);
        StateWatch::new(self.shared.parts.state_signal(), move || {
            let state = shared.upgrade()?.parts.state();
            let is_last = state.is_finished();
            Some((state, is_last))
        })
    }

    /// Whether the topic, or every partition of it, is attached to a broker at the moment. Sending works either way.
    pub fn is_connected(&self) -> bool {
        self.shared.parts.are_attached()
    }

    /// Why the topic, or the first partition of it that is not attached, is not attached: the failure of the last attempt.
    /// `None` while [connected](Self::is_connected), and until an attempt has failed. Attempts go on until the producer is
    /// closed, unless a failure is final.
    pub fn connection_error(&self) -> Option<Error> {
        self.shared.parts.iter().find_map(|part| part.read(|machine| machine.last_failure().cloned()))
    }

    /// How many partitions the topic has, as far as this producer knows; 0 means that it is not partitioned, as with
    /// [`Client::partitions`](super::Client::partitions).
    pub fn partitions(&self) -> u32 {
        self.shared.partitions()
    }
}

/// Runs `work` on the machine. If that closed a batch, the batch is sealed here, on the sending task and without the
/// lock.
#[inline]
fn with_seal<R>(endpoint: &Endpoint<Machine>, work: impl FnOnce(&mut Machine, &mut Deferred) -> R) -> R {
    let mut deferred = Deferred::new();
    let (result, closed) = endpoint.with_deferred(&mut deferred, |producer, deferred| {
        let result = work(producer, deferred);
        (result, producer.has_closed_job())
    });
    if closed {
        seal_closed(endpoint, &mut deferred);
    }
    result
}

fn seal_closed(endpoint: &Endpoint<Machine>, deferred: &mut Deferred) {
    let mut job = endpoint.with_deferred(deferred, |producer, _| producer.take_closed_job(clock::now));
    while let Some(sealing) = job {
        let sealed = sealing.run();
        job = endpoint.with_deferred(deferred, |producer, deferred| {
            producer.put_job(sealed, clock::now(), deferred);
            producer.take_closed_job(clock::now)
        });
    }
}

/// The future of [`Producer::enqueue`]: waits for capacity, then pushes the message. If it is dropped before that, it
/// leaves the queue of waiters.
///
/// The message stands first, so that it is moved in the same pieces each time: a load that spans two stores waits for both.
#[repr(C)]
struct Accept<'a> {
    message: Option<Message>,
    callback: Option<SendCallback>,
    producer: &'a Producer,
    /// Where the message goes, once the future was polled.
    endpoint: Option<&'a Endpoint<Machine>>,
    waiter: CapacityWaiter,
}

impl Accept<'_> {
    /// The first poll, and its fast path: there is capacity and no other task waits for it. `None`: nothing was pushed. Not
    /// inlined, and with a result that fits registers, because everything that is moved through memory shows in the cost of a
    /// message.
    #[inline(never)]
    fn poll_first(&mut self) -> Option<PendingSend> {
        let Self { message, callback, producer, endpoint, .. } = self;
        let endpoint = *endpoint.insert(producer.prepare(message, callback)?);
        let (pending, closed) = endpoint.with(|producer| {
            let pending = producer.push_fast(message, callback, clock::now);
            (pending, producer.has_closed_job())
        });
        if closed {
            seal_closed(endpoint, &mut Deferred::new());
        }
        pending
    }

    /// The general path: also for a full queue, tasks that wait already, a message that is refused.
    #[cold]
    fn poll_slow(&mut self, cx: &mut Context<'_>) -> Poll<Result<PendingSend, SendError>> {
        let Self { message, callback, endpoint, waiter, .. } = self;
        let endpoint = endpoint.expect("the first poll finds it");
        let polled = with_seal(endpoint, |producer, deferred| {
            producer.poll_push(waiter, message, callback, cx.waker(), clock::now, deferred)
        });
        if let Poll::Ready(Err(error)) = &polled {
            if let Some(callback) = callback.take() {
                callback.on_refused(error);
            }
        }
        polled
    }
}

impl Future for Accept<'_> {
    type Output = Result<PendingSend, SendError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.endpoint.is_none() {
            if let Some(pending) = self.poll_first() {
                return Poll::Ready(Ok(pending));
            }
        }
        self.poll_slow(cx)
    }
}

impl Drop for Accept<'_> {
    /// Removes the waiter, so that the next one can get the capacity.
    #[inline]
    fn drop(&mut self) {
        if let Some(endpoint) = self.endpoint.filter(|_| self.waiter.is_waiting()) {
            let waiter = &mut self.waiter;
            endpoint.with_deferred(&mut Deferred::new(), |producer, deferred| producer.stop_waiting(waiter, deferred));
        }
    }
}

/// Why [`Producer::try_enqueue`] did not accept a message.
#[derive(Debug)]
#[non_exhaustive]
pub enum TryEnqueueError {
    /// There is no capacity.
    #[non_exhaustive]
    Full {
        /// The message, as it was.
        message: Box<Message>,
        /// Which bound is reached.
        bound: CapacityBound,
    },
    /// The message cannot be sent.
    Refused(SendError),
}

impl fmt::Display for TryEnqueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { bound, .. } => {
                write!(f, "no capacity among the pending messages ({bound}); wait for some of them to be confirmed")
            }
            Self::Refused(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for TryEnqueueError {}

impl From<TryEnqueueError> for Error {
    fn from(error: TryEnqueueError) -> Self {
        match error {
            TryEnqueueError::Full { .. } => Self::local(ErrorKind::QueueFull, error.to_string()),
            TryEnqueueError::Refused(error) => error.into(),
        }
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Producer({})", self.shared.topic)
    }
}
