//! What is done with each message of a producer, before it is sent and after.

use std::sync::Arc;

use crate::client::producer_shared::TraceSource;
use crate::error::SendError;
use crate::id::MessageId;
use crate::machine::producer::Message;
use crate::machine::producer::results::{OnSent, SendCallback};

/// Sees, and may change, the messages of a producer: see
/// [`ProducerBuilder::intercept`](crate::ProducerBuilder::intercept). Java: `ProducerInterceptor`.
///
/// Several are called in the order in which they were added. They are shared by all clones of the producer and called from
/// many threads at a time. No lock of the client is held. What blocks in one delays that call, and in
/// [`on_send_acknowledgement`](Self::on_send_acknowledgement) a connection. A panic is reported by the panic hook; the
/// others are called, and the message goes its way.
///
/// ```no_run
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use pulsar_native::{Message, MessageId, ProducerInterceptor, SendError};
///
/// #[derive(Default)]
/// struct Audit {
///     failed: AtomicU64,
/// }
///
/// impl ProducerInterceptor for Audit {
///     fn before_send(&self, _topic: &str, message: Message) -> Message {
///         message.with_property("sent-by", "billing")
///     }
///
///     fn on_send_acknowledgement(&self, _topic: &str, _message: &Message, result: Result<&MessageId, &SendError>) {
///         if result.is_err() {
///             self.failed.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
///
/// # async fn example(client: pulsar_native::Client) -> Result<(), pulsar_native::Error> {
/// let producer = client.producer("orders").intercept(Audit::default()).create().await?;
/// # Ok(())
/// # }
/// ```
pub trait ProducerInterceptor: Send + Sync + 'static {
    /// A message is handed to the producer: what is returned is sent instead. Called before the message is routed, in the
    /// call that hands it over and on its task, whether or not there is capacity. `topic` is that of the producer. After a
    /// panic the message stays as it was before this interceptor. Default: the same message.
    fn before_send(&self, topic: &str, message: Message) -> Message {
        let _ = topic;
        message
    }

    /// A message, as it was sent, is stored or has failed, or was refused before it was accepted. Called on a connection's
    /// task, before the callback of [`enqueue_with`](crate::Producer::enqueue_with); for a message that was refused, on the
    /// task of the call. [`send`](crate::Producer::send) may return before.
    ///
    /// Not called for a message whose `send` or `enqueue` was dropped before it was accepted, nor for one that
    /// [`try_enqueue`](crate::Producer::try_enqueue) gave back. Default: nothing.
    fn on_send_acknowledgement(&self, topic: &str, message: &Message, result: Result<&MessageId, &SendError>) {
        let _ = (topic, message, result);
    }

    /// The topic has got more partitions, and the producer sends to them from now on; `partitions`: how many there are. Default:
    /// nothing.
    fn on_partitions_change(&self, topic: &str, partitions: u32) {
        let _ = (topic, partitions);
    }
}

/// What is done with each message before it is routed; where there is nothing, a producer has none.
#[derive(Clone, Default)]
pub(in crate::client) struct SendHooks {
    /// In the order of the calls.
    interceptors: Arc<Vec<Arc<dyn ProducerInterceptor>>>,
    trace_context: Option<TraceSource>,
}

impl SendHooks {
    pub(in crate::client) fn intercept(&mut self, interceptor: impl ProducerInterceptor) {
        Arc::make_mut(&mut self.interceptors).push(Arc::new(interceptor));
    }

    pub(in crate::client) fn set_trace_context(&mut self, source: TraceSource) {
        self.trace_context = Some(source);
    }

    /// Itself, unless there is nothing to do.
    pub(in crate::client) fn if_any(self) -> Option<Self> {
        (self.trace_context.is_some() || !self.interceptors.is_empty()).then_some(self)
    }

    /// The message that is sent instead, and what gets its outcome instead of `callback`.
    #[cold]
    #[inline(never)]
    pub(in crate::client) fn prepare(
        &self,
        topic: &Arc<str>,
        mut message: Message,
        callback: Option<SendCallback>,
    ) -> (Message, Option<SendCallback>) {
        for interceptor in self.interceptors.iter() {
            let before = message.clone();
            message = super::call(|| interceptor.before_send(topic, message)).unwrap_or(before);
        }
        if let Some(source) = self.trace_context.as_ref().filter(|_| !message.has_traceparent()) {
            if let Some(context) = source() {
                message.set_trace_context(context);
            }
        }
        if self.interceptors.is_empty() {
            return (message, callback);
        }
        let interceptors = self.interceptors.clone();
        let outcome = Outcome { interceptors, topic: topic.clone(), message: message.clone(), callback };
        (message, Some(Box::new(outcome)))
    }

    /// See [`ProducerInterceptor::on_partitions_change`].
    pub(in crate::client) fn on_partitions_change(&self, topic: &str, partitions: u32) {
        for interceptor in self.interceptors.iter() {
            super::call(|| interceptor.on_partitions_change(topic, partitions));
        }
    }
}

/// Waits for what becomes of a message.
struct Outcome {
    interceptors: Arc<Vec<Arc<dyn ProducerInterceptor>>>,
    topic: Arc<str>,
    message: Message,
    /// That of the application.
    callback: Option<SendCallback>,
}

impl Outcome {
    fn tell(&self, result: Result<&MessageId, &SendError>) {
        for interceptor in self.interceptors.iter() {
            super::call(|| interceptor.on_send_acknowledgement(&self.topic, &self.message, result));
        }
    }
}

impl OnSent for Outcome {
    fn on_sent(self: Box<Self>, result: Result<MessageId, SendError>) {
        self.tell(result.as_ref());
        if let Some(callback) = self.callback {
            callback.on_sent(result);
        }
    }

    fn on_refused(self: Box<Self>, error: &SendError) {
        self.tell(Err(error));
    }
}
