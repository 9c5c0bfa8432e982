//! The state of a producer or consumer, and how to watch it.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::machine::endpoint::attach_status::AttachState;
use crate::machine::endpoint::state_signal::StateSignal;

/// The state of one topic or partition of a producer or consumer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PartState {
    /// The full name of the topic, or of the partition.
    pub topic: Arc<str>,
    /// Where it is attached, or why it is not.
    pub state: AttachState,
}

/// The state of a producer or consumer: that of each topic and partition it has at the moment.
///
/// ```
/// # #[cfg(feature = "broker")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use pulsar_native::broker::EmbeddedBroker;
/// # use pulsar_native::Client;
/// # let broker = EmbeddedBroker::builder().start().await?;
/// # let client = Client::builder(broker.url()).connect().await?;
/// let producer = client.producer("orders").create().await?;
/// let state = producer.state();
/// assert!(state.is_attached());
/// println!("{state}");
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "broker"))]
/// # fn main() {}
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HandleState {
    /// In the order in which they were added; the partitions of one topic by their index.
    pub parts: Vec<PartState>,
}

impl HandleState {
    /// Whether every part is attached to a broker. `false` without parts.
    pub fn is_attached(&self) -> bool {
        !self.parts.is_empty() && self.parts.iter().all(|part| part.state.is_attached())
    }

    /// Whether every part has ended. `false` without parts, which may still come.
    pub fn is_finished(&self) -> bool {
        !self.parts.is_empty() && self.parts.iter().all(|part| part.state.is_finished())
    }

    /// The parts that are neither attached nor finished.
    pub fn detached(&self) -> impl Iterator<Item = &PartState> {
        self.parts.iter().filter(|part| matches!(part.state, AttachState::Detached { .. }))
    }
}

/// A line for each part.
impl fmt::Display for HandleState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for PartState { topic, state } in &self.parts {
            write!(f, "{separator}{topic}: {state}")?;
            separator = "\n";
        }
        Ok(())
    }
}

/// The changes of a state `S`: created by [`Producer::watch_state`](super::Producer::watch_state),
/// [`Consumer::watch_state`](super::Consumer::watch_state) and [`Client::watch_state`](super::Client::watch_state).
///
/// The first item is the present state, and each later one the state after a change. Changes that follow each other
/// faster than they are read are coalesced: a reader sees the latest state, in the order of time, and may miss those in
/// between. It is also a [`Stream`]. It ends once the last state, in which all parts have ended, was read, or when the
/// handle was dropped; it does not keep the handle open. A consumer of a pattern has its last state when it is closed: until then
/// topics may join.
pub struct StateWatch<S> {
    signal: Arc<StateSignal>,
    seen: u64,
    read: ReadState<S>,
    is_over: bool,
}

/// The present state, with whether it is the last one; `None` once the handle was dropped.
type ReadState<S> = Box<dyn Fn() -> Option<(S, bool)> + Send + Sync>;

impl<S> StateWatch<S> {
    pub(super) fn new(signal: Arc<StateSignal>, read: impl Fn() -> Option<(S, bool)> + Send + Sync + 'static) -> Self {
        Self { signal, seen: 0, read: Box::new(read), is_over: false }
    }

    /// The present state if that has changed since the last call, else the next one; `None` after the last.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn changed(&mut self) -> Option<S> {
        poll_fn(|cx| self.poll_changed(cx)).await
    }

    fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<Option<S>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        std::task::ready!(self.signal.poll_changed(&mut self.seen, cx));
        let state = (self.read)();
        self.is_over = state.as_ref().is_none_or(|(_, is_last)| *is_last);
        Poll::Ready(state.map(|(state, _)| state))
    }
}

impl<S> Stream for StateWatch<S> {
    type Item = S;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S>> {
        self.poll_changed(cx)
    }
}

impl<S> fmt::Debug for StateWatch<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateWatch(version {} seen)", self.seen)
    }
}
