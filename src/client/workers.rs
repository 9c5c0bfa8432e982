//! Worker pools over one consumer: messages in parallel, or keys in parallel.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::acker::Acker;
use super::consumer::Consumer;
use super::message::ReceivedMessage;
use crate::error::{Error, ErrorKind, Result};
use crate::hash::murmur3_32;

/// The most messages that wait for one worker of [`Consumer::process_by_key`] while it is busy.
const WORKER_QUEUE_MESSAGES_MAX: usize = 16;

/// Whether [`Consumer::process`] or [`Consumer::process_by_key`] acknowledges a message after the work on it.
///
/// `()` acknowledges. A `Result` acknowledges with `Ok` and negatively acknowledges with `Err`; the error itself is
/// dropped, so log it in the work if it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The message is acknowledged; see [`Acker::ack`].
    Ack,
    /// The message is negatively acknowledged and redelivered; see [`Acker::nack`].
    Nack,
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
    /// Runs `work` on each message, up to `concurrency` at a time, each in a separate task; order is not kept. The return
    /// value of `work` decides whether the message is acknowledged: see [`Outcome`].
    ///
    /// It returns when the consumer has ended. [Events](Self::events) do not end it.
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
    /// - [`ErrorKind::Closed`]: `work` panicked. The consumer can still be used.
    /// - [`ErrorKind::InvalidArgument`]: `concurrency` is zero.
    ///
    /// # Cancel safety
    /// Dropping the future aborts the running work; unacknowledged messages are redelivered when this consumer is
    /// closed.
    pub async fn process<F, Fut>(&mut self, concurrency: usize, work: F) -> Result<()>
    where
        F: Fn(ReceivedMessage) -> Fut,
        Fut: Future<Output: Into<Outcome>> + Send + 'static,
    {
        refuse_zero("concurrency", concurrency)?;
        let mut tasks = JoinSet::new();
        loop {
            // A panic in the work is noticed while this waits for a message, too.
            let received = poll_fn(|cx| match poll_ended(&mut tasks, cx) {
                Err(error) => Poll::Ready(Err(error)),
                Ok(()) => self.poll_receive(cx).map(Ok),
            });
            let received = received.await?;
            while tasks.len() >= concurrency {
                check(tasks.join_next().await)?;
            }
            match received {
                Ok(message) => {
                    let (acker, working) = (self.acker(), work(message.clone()));
                    tasks.spawn(async move { settle(&acker, &message, working.await.into()) });
                }
                Err(error) => {
                    finish(tasks).await?;
                    return Err(error);
                }
            }
        }
    }

    /// Runs `work` on each message on `workers` tasks; messages of one key go to the same task, in order. The key is the
    /// ordering key, or the key if there is none; messages without either go to the tasks in turn. The return value of
    /// `work` decides whether the message is acknowledged: see [`Outcome`].
    ///
    /// ```no_run
    /// # async fn example(mut consumer: pulsar_native::Consumer) -> Result<(), pulsar_native::Error> {
    /// use pulsar_native::Outcome;
    ///
    /// let work = |message: pulsar_native::ReceivedMessage| async move {
    ///     if message.is_null() { Outcome::Nack } else { Outcome::Ack }
    /// };
    /// consumer.process_by_key(4, work).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// Same as [`Self::process`], where `workers` is zero.
    ///
    /// # Cancel safety
    /// Same as [`Self::process`].
    pub async fn process_by_key<F, Fut>(&mut self, workers: usize, work: F) -> Result<()>
    where
        F: Fn(ReceivedMessage) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: Into<Outcome>> + Send,
    {
        refuse_zero("workers", workers)?;
        let work = Arc::new(work);
        let mut tasks = JoinSet::new();
        let mut queues = Vec::new();
        for _ in 0..workers {
            let (queue, mut messages) = mpsc::channel::<ReceivedMessage>(WORKER_QUEUE_MESSAGES_MAX);
            let (work, acker) = (work.clone(), self.acker());
            tasks.spawn(async move {
                while let Some(message) = messages.recv().await {
                    let outcome = work(message.clone()).await.into();
                    settle(&acker, &message, outcome);
                }
            });
            queues.push(queue);
        }
        let mut next_worker = 0usize;
        loop {
            match self.receive().await {
                Ok(message) => {
                    let worker = worker_of(&message, &mut next_worker, workers);
                    if queues[worker].send(message).await.is_err() {
                        return check(tasks.join_next().await);
                    }
                }
                Err(error) => {
                    queues.clear();
                    finish(tasks).await?;
                    return Err(error);
                }
            }
        }
    }
}

/// Acknowledges according to the outcome. A message whose acknowledgement is refused, because its part has ended or too
/// many wait for a connection, stays unacknowledged and is redelivered.
fn settle(acker: &Acker, message: &ReceivedMessage, outcome: Outcome) {
    let _refused = match outcome {
        Outcome::Ack => acker.ack(message),
        Outcome::Nack => acker.nack(message),
        Outcome::Keep => Ok(()),
    };
}

fn refuse_zero(name: &str, number: usize) -> Result<()> {
    if number == 0 {
        return Err(Error::local(ErrorKind::InvalidArgument, format!("{name} must be at least 1")));
    }
    Ok(())
}

fn worker_of(message: &ReceivedMessage, next_worker: &mut usize, workers: usize) -> usize {
    let key = message.ordering_key().or_else(|| message.key().map(str::as_bytes));
    match key {
        Some(key) => murmur3_32(key) as usize % workers,
        None => {
            *next_worker = (*next_worker + 1) % workers;
            *next_worker
        }
    }
}

async fn finish(mut tasks: JoinSet<()>) -> Result<()> {
    while !tasks.is_empty() {
        check(tasks.join_next().await)?;
    }
    Ok(())
}

/// Removes the tasks that have ended; the first panic among them is the error.
fn poll_ended(tasks: &mut JoinSet<()>, cx: &mut Context<'_>) -> Result<()> {
    while let Poll::Ready(Some(ended)) = tasks.poll_join_next(cx) {
        check(Some(ended))?;
    }
    Ok(())
}

fn check(ended: Option<std::result::Result<(), tokio::task::JoinError>>) -> Result<()> {
    match ended {
        Some(Err(error)) => Err(Error::local(ErrorKind::Closed, "the work on a message panicked").with_source(error)),
        _ => Ok(()),
    }
}
