//! Worker pools over one consumer: many messages at a time, or many keys at a time.

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

/// Messages that wait for one worker of [`Consumer::process_by_key`] while it is busy.
const WORKER_QUEUE_MESSAGES_MAX: usize = 16;

impl Consumer {
    /// Runs `work` on each message, up to `concurrent` at a time, each in a task of its own; order is not kept.
    ///
    /// `work` acknowledges, or not, by the [`Acker`] it is given. It goes on until the consumer ends.
    ///
    /// # Errors
    /// Why the consumer ended; an error that concerns one message only ([`ErrorKind::Unsupported`]) ends it too. A
    /// panic in `work` ends it with [`ErrorKind::Closed`].
    ///
    /// # Cancel safety
    /// Dropping the future aborts the work under way; what it had not acknowledged is delivered again when this
    /// consumer is closed.
    ///
    /// # Panics
    /// If `concurrent` is zero.
    pub async fn process<F, Fut>(&mut self, concurrent: usize, work: F) -> Result<()>
    where
        F: Fn(ReceivedMessage, Acker) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        assert!(concurrent > 0, "some work has to be allowed");
        let mut tasks = JoinSet::new();
        loop {
            // While it waits for a message, work that ends in a panic is noticed too.
            let received = poll_fn(|cx| match poll_ended(&mut tasks, cx) {
                Err(error) => Poll::Ready(Err(error)),
                Ok(()) => self.poll_receive(cx).map(Ok),
            });
            let received = received.await?;
            while tasks.len() >= concurrent {
                check(tasks.join_next().await)?;
            }
            match received {
                Ok(message) => tasks.spawn(work(message, self.acker())),
                Err(error) => {
                    finish(tasks).await?;
                    return Err(error);
                }
            };
        }
    }

    /// Runs `work` on each message on `workers` tasks; messages of one key go to one of them, in order. The ordering
    /// key counts, else the partition key; those without a key go round.
    ///
    /// # Errors
    /// As of [`Self::process`].
    ///
    /// # Cancel safety
    /// As of [`Self::process`].
    ///
    /// # Panics
    /// If `workers` is zero.
    pub async fn process_by_key<F, Fut>(&mut self, workers: usize, work: F) -> Result<()>
    where
        F: Fn(ReceivedMessage, Acker) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send,
    {
        assert!(workers > 0, "there has to be a worker");
        let work = Arc::new(work);
        let mut tasks = JoinSet::new();
        let mut queues = Vec::new();
        for _ in 0..workers {
            let (queue, mut messages) = mpsc::channel::<ReceivedMessage>(WORKER_QUEUE_MESSAGES_MAX);
            let (work, acker) = (work.clone(), self.acker());
            tasks.spawn(async move {
                while let Some(message) = messages.recv().await {
                    work(message, acker.clone()).await;
                }
            });
            queues.push(queue);
        }
        let mut turn = 0usize;
        loop {
            match self.receive().await {
                Ok(message) => {
                    let worker = worker_of(&message, &mut turn, workers);
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

fn worker_of(message: &ReceivedMessage, turn: &mut usize, workers: usize) -> usize {
    let key = message.ordering_key().or_else(|| message.key().map(str::as_bytes));
    match key {
        Some(key) => murmur3_32(key) as usize % workers,
        None => {
            *turn = (*turn + 1) % workers;
            *turn
        }
    }
}

async fn finish(mut tasks: JoinSet<()>) -> Result<()> {
    while !tasks.is_empty() {
        check(tasks.join_next().await)?;
    }
    Ok(())
}

/// Takes the tasks that have ended.
fn poll_ended(tasks: &mut JoinSet<()>, cx: &mut Context<'_>) -> Result<()> {
    while let Poll::Ready(Some(ended)) = tasks.poll_join_next(cx) {
        check(Some(ended))?;
    }
    Ok(())
}

fn check(ended: Option<std::result::Result<(), tokio::task::JoinError>>) -> Result<()> {
    match ended {
        Some(Err(error)) => Err(Error::local(ErrorKind::Closed, "the work on a message ended").with_source(error)),
        _ => Ok(()),
    }
}
