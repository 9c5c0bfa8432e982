//! Worker pools over one consumer: messages in parallel, or keys in parallel.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::acker::Acker;
use super::consumer::Consumer;
use super::message::ReceivedMessage;
use super::user_code::catch_panic;
use crate::error::{Error, ErrorKind, Result};

mod by_key;
mod keys;
mod tasks;

pub(super) use tasks::Tasks;

/// What becomes of a message after the work on it by [`Consumer::process`] or [`Consumer::process_by_key`].
///
/// `()` acknowledges. A `Result` acknowledges with `Ok` and negatively acknowledges with `Err`; the error itself is
/// dropped, so log it in the work if it matters. Work that panics is negatively acknowledged like work that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The message is acknowledged; see [`Acker::ack`]. If that is refused, because its topic has ended or too many
    /// acknowledgments wait for a connection, the message stays unacknowledged and is delivered again; the refusal is not
    /// reported. To see it, acknowledge in the work and return [`Keep`](Self::Keep).
    Ack,
    /// The message is negatively acknowledged and redelivered; see [`Acker::nack`].
    Nack,
    /// The message is worked on again after this delay. By [`process_by_key`](Consumer::process_by_key) in place, with the
    /// messages of its key behind it; by [`process`](Consumer::process) it is redelivered, see [`Acker::nack_after`].
    Retry(Duration),
    /// The message is given up, for this reason: it goes to the dead-letter topic, with the reason as the property
    /// `DEAD_LETTER_REASON`, and is acknowledged once it is stored there. Without a
    /// [policy](super::ConsumerBuilder::dead_letter_policy) it is negatively acknowledged, and
    /// [`ConsumerEvent::DeadLetterFailed`](super::ConsumerEvent::DeadLetterFailed) says so.
    DeadLetter(String),
    /// Neither: the work acknowledges the message itself, now or later, with an [`Acker`].
    Keep,
}

impl From<()> for Outcome {
    fn from((): ()) -> Self {
        Self::Ack
    }
}

impl<T: Into<Outcome>, E> From<std::result::Result<T, E>> for Outcome {
    fn from(result: std::result::Result<T, E>) -> Self {
        result.map_or(Self::Nack, Into::into)
    }
}

impl Consumer {
    /// Runs `work` on each message, up to so many at a time, each in a separate task; order is not kept. The return
    /// value of `work` decides whether the message is acknowledged: see [`Outcome`].
    ///
    /// It returns when the consumer has ended, with the reason, after the work that is running; it never returns `Ok`.
    /// [Events](Self::events) do not end it.
    ///
    /// ```no_run
    /// # async fn store(_: &[u8]) -> std::io::Result<()> { Ok(()) }
    /// # async fn example(mut consumer: pulsar_native::Consumer) -> Result<(), pulsar_native::Error> {
    /// // A message is acknowledged once it is stored, and redelivered if that fails.
    /// consumer.process(8, |message| async move { store(message.payload()).await }).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// - The reason why the consumer has ended.
    /// - [`ErrorKind::InvalidArgument`]: an option is zero.
    ///
    /// # Cancel safety
    /// Dropping the future aborts the running work; unacknowledged messages are redelivered when this consumer is
    /// closed.
    pub async fn process<F, Fut>(&mut self, options: impl Into<WorkOptions>, work: F) -> Result<()>
    where
        F: Fn(ReceivedMessage) -> Fut,
        Fut: Future<Output: Into<Outcome>> + Send + 'static,
    {
        let WorkOptions { concurrency, .. } = options.into().checked()?;
        let mut tasks: Tasks<()> = self.shared().new_tasks();
        let in_hand = self.shared().in_hand().pool();
        loop {
            match self.receive().await {
                Ok(message) => {
                    // Frees what the tasks that have ended leave.
                    while tasks.try_next().is_some() {}
                    while tasks.len() >= concurrency {
                        tasks.next().await;
                    }
                    let (acker, given) = (self.acker(), message.clone());
                    match catch_unwind(AssertUnwindSafe(|| work(given))) {
                        Ok(working) => tasks.spawn(run(acker, message, || working)),
                        Err(_) => settle(&acker, &message, Outcome::Nack),
                    }
                    in_hand.set(tasks.len());
                }
                Err(error) => {
                    while tasks.next().await.is_some() {
                        in_hand.set(tasks.len());
                    }
                    return Err(error);
                }
            }
        }
    }
}

/// Does the work on one message to its end.
async fn run<Fut>(acker: Acker, message: ReceivedMessage, work: impl FnOnce() -> Fut)
where
    Fut: Future<Output: Into<Outcome>>,
{
    settle(&acker, &message, outcome_of(work).await);
}

/// How the work on a message has ended.
async fn outcome_of<Fut>(work: impl FnOnce() -> Fut) -> Outcome
where
    Fut: Future<Output: Into<Outcome>>,
{
    // What the work returns is code of the application as well: how it becomes an outcome, and how it is dropped.
    catch_panic(|| async { work().await.into() }).await.unwrap_or(Outcome::Nack)
}

/// Acknowledges as the work says. A message whose acknowledgement is refused, because its part has ended or too many
/// wait for a connection, stays unacknowledged and is delivered again.
fn settle(acker: &Acker, message: &ReceivedMessage, outcome: Outcome) {
    let _refused = match outcome {
        Outcome::Ack => acker.ack(message),
        Outcome::Nack => acker.nack(message),
        Outcome::Retry(after) => acker.nack_after(message, after),
        Outcome::DeadLetter(reason) => acker.give_up(message, reason),
        Outcome::Keep => Ok(()),
    };
}

/// How a worker pool works. A number alone is its concurrency.
///
/// ```
/// use pulsar_native::WorkOptions;
///
/// let options = WorkOptions::new(8).with_parked_max(50_000, 16 * 1024 * 1024);
/// assert_ne!(options, 8.into());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "options do nothing until a pool has them"]
pub struct WorkOptions {
    concurrency: usize,
    parked_messages_max: usize,
    parked_bytes_max: usize,
}

impl WorkOptions {
    /// On so many messages at a time; at least 1.
    pub const fn new(concurrency: usize) -> Self {
        Self { concurrency, parked_messages_max: 20_000, parked_bytes_max: 64 * 1024 * 1024 }
    }

    /// [`process_by_key`](Consumer::process_by_key): how many messages, and bytes of their payloads, may wait for a retry,
    /// or behind one, before nothing more is received; at least 1 each. Brokers stop at 50,000 unacknowledged messages of
    /// a consumer by default (`maxUnackedMessagesPerConsumer`). Default: 20,000 messages, 64 MiB.
    pub const fn with_parked_max(mut self, messages: usize, bytes: usize) -> Self {
        self.parked_messages_max = messages;
        self.parked_bytes_max = bytes;
        self
    }

    fn checked(self) -> Result<Self> {
        refuse_zero("concurrency", self.concurrency)?;
        refuse_zero("the number of parked messages", self.parked_messages_max)?;
        refuse_zero("the number of parked bytes", self.parked_bytes_max)?;
        Ok(self)
    }
}

impl From<usize> for WorkOptions {
    fn from(concurrency: usize) -> Self {
        Self::new(concurrency)
    }
}

fn refuse_zero(name: &str, number: usize) -> Result<()> {
    if number == 0 {
        return Err(Error::local(ErrorKind::InvalidArgument, format!("{name} must be at least 1")));
    }
    Ok(())
}
