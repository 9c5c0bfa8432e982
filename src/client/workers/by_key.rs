//! Work on many keys at a time, on each in order: see [`keys`](super::keys).

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::keys::{Key, Keyed, Queues};
use super::{Outcome, Tasks, WorkOptions, outcome_of, settle};
use crate::client::clock;
use crate::client::consumer::Consumer;
use crate::client::drain::PoolHand;
use crate::client::message::ReceivedMessage;
use crate::client::runtime::AsyncTimer;
use crate::error::{Error, Result};

/// Messages that were received and whose work has not started, of all keys together. Beyond it nothing is received, so
/// this is how far a key whose work takes long is overtaken by the others.
const WAITING_MAX: usize = 1000;

impl Consumer {
    /// Runs `work` on up to so many messages at a time, each in a separate task. Messages of one key run one after another,
    /// in the order of delivery; the key is the ordering key, or the key if there is none. Messages without either run in
    /// no order. The return value of `work` decides what becomes of the message: see [`Outcome`].
    ///
    /// [`Outcome::Retry`] keeps the order: the message is worked on again after its delay, here and not by way of the
    /// broker, and only the messages of its key wait for it. They stay unacknowledged, and return their permits up to
    /// [`WorkOptions::with_parked_max`], so that a key that fails does not keep the others from being received. With
    /// [`Outcome::Nack`] the message comes again behind others of its key.
    ///
    /// Each key has a queue: work that takes long or never ends occupies one of the tasks and delays the messages of its
    /// key. The other keys continue until 1,000 received messages wait for work; then nothing more is received until one
    /// of these starts. A message that is delivered again while it waits here, as after a reconnect, is worked on once.
    /// When the consumer has ended, messages that were received are still worked on, except those that wait for a retry.
    ///
    /// ```no_run
    /// # async fn store(_: &[u8]) -> std::io::Result<()> { Ok(()) }
    /// # async fn example(mut consumer: pulsar_native::Consumer) -> Result<(), pulsar_native::Error> {
    /// use std::time::Duration;
    ///
    /// use pulsar_native::Outcome;
    ///
    /// let work = |message: pulsar_native::ReceivedMessage| async move {
    ///     match store(message.payload()).await {
    ///         Ok(()) => Outcome::Ack,
    ///         Err(_) => Outcome::Retry(Duration::from_secs(1)),
    ///     }
    /// };
    /// consumer.process_by_key(4, work).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// - The reason why the consumer has ended.
    /// - [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument): an option is zero.
    ///
    /// # Cancel safety
    /// Dropping the future aborts the running work; unacknowledged messages are redelivered when this consumer is
    /// closed.
    pub async fn process_by_key<F, Fut>(&mut self, options: impl Into<WorkOptions>, work: F) -> Result<()>
    where
        F: Fn(ReceivedMessage) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: Into<Outcome>> + Send,
    {
        let options = options.into().checked()?;
        let (tasks, timer) = (self.shared().new_tasks(), self.shared().new_timer());
        let in_hand = self.shared().in_hand().pool();
        let mut pool = Pool {
            consumer: self,
            options,
            work: Arc::new(work),
            queues: Queues::default(),
            tasks,
            timer,
            timer_at: None,
            has_ended: false,
            in_hand,
        };
        let error = poll_fn(|cx| pool.poll(cx)).await;
        pool.has_ended = true;
        pool.queues.abandon_parked();
        while pool.tasks.len() > 0 {
            poll_fn(|cx| pool.poll_settled(cx)).await;
            pool.start();
        }
        Err(error)
    }
}

/// One call of [`Consumer::process_by_key`].
struct Pool<'a, F> {
    consumer: &'a mut Consumer,
    options: WorkOptions,
    work: Arc<F>,
    queues: Queues<ReceivedMessage>,
    tasks: Tasks<Ended>,
    timer: Box<dyn AsyncTimer>,
    /// What the timer is set to.
    timer_at: Option<Instant>,
    /// Nothing is received any more, and nothing tried again.
    has_ended: bool,
    in_hand: PoolHand,
}

/// How the work on a message has ended; the default is that of a task that was aborted with its runtime.
#[derive(Default)]
struct Ended {
    /// The key of the message.
    key: Option<Key>,
    /// It is to be tried again.
    retry: Option<(ReceivedMessage, Duration)>,
}

impl<F, Fut> Pool<'_, F>
where
    F: Fn(ReceivedMessage) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: Into<Outcome>> + Send,
{
    /// Receives, starts and settles until the consumer ends; then why it has ended. What waits has not been started.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        loop {
            while self.poll_settled(cx).is_ready() {}
            while self.poll_retries(cx).is_ready() {}
            self.start();
            if self.is_full() && !self.consumer.shared().is_stopped_or_wakes(cx.waker()) {
                return Poll::Pending;
            }
            match self.consumer.poll_receive(cx) {
                Poll::Ready(Ok(message)) => self.queues.push(message),
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Whether nothing is received until one of those that are here has started.
    fn is_full(&self) -> bool {
        let waiting_max = if mutation!(StuckKeyStopsAll) { 1 } else { WAITING_MAX };
        let (messages, bytes) = self.queues.parked();
        self.queues.waiting() >= waiting_max
            || messages >= self.options.parked_messages_max
            || bytes >= self.options.parked_bytes_max
    }

    /// Takes one task that has ended; pending where none has, or none is left.
    fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let ended = match self.tasks.poll_next(cx) {
            Poll::Ready(Some(ended)) => ended,
            Poll::Ready(None) | Poll::Pending => return Poll::Pending,
        };
        match (ended.retry, ended.key) {
            (Some(_), Some(key)) if self.has_ended => self.queues.abandon(&key),
            (Some((message, after)), key) if !self.has_ended => {
                // Beyond the range of the clock is never.
                let now = clock::now().at;
                let at = now.checked_add(after).unwrap_or(now + Duration::from_secs(u32::MAX.into()));
                self.queues.park(key, message, at);
            }
            (_, Some(key)) => self.queues.settled(key),
            (_, None) => {}
        }
        Poll::Ready(())
    }

    /// Makes ready what is to be tried again; ready if the timer may have to be set anew.
    fn poll_retries(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.queues.due_at() else { return Poll::Pending };
        if self.timer_at != Some(at) {
            self.timer.reset(at);
            self.timer_at = Some(at);
        }
        if self.timer.poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.timer_at = None;
        self.queues.unpark(clock::now().at.max(at));
        Poll::Ready(())
    }

    /// Gives messages to workers that are free.
    fn start(&mut self) {
        self.start_free();
        self.in_hand.set(self.tasks.len() + self.queues.waiting());
    }

    fn start_free(&mut self) {
        while self.tasks.len() < self.options.concurrency {
            let Some((key, message)) = self.queues.pop() else { return };
            let (acker, work, given) = (self.consumer.acker(), self.work.clone(), message.clone());
            self.tasks.spawn(async move {
                let retry = match outcome_of(|| work(given)).await {
                    Outcome::Retry(after) => Some((message, after)),
                    outcome => {
                        settle(&acker, &message, outcome);
                        None
                    }
                };
                Ended { key, retry }
            });
        }
    }
}

impl Keyed for ReceivedMessage {
    fn key(&self) -> Option<&[u8]> {
        self.ordering_key().or_else(|| self.key().map(str::as_bytes))
    }

    fn size_bytes(&self) -> usize {
        self.payload().len()
    }

    fn is_same(&self, other: &Self) -> bool {
        self.position() == other.position() && self.part().id() == other.part().id()
    }
}
