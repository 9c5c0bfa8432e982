//! Work on many keys at a time, on each in order.
//!
//! ```text
//!                          a worker is free            the work is done, more of its key wait
//!  received ---> waiting ------------------> running -----------------------------+
//!                   ^    (per key, in order)    | the work is done                |
//!                   |                           v                                 |
//!                   |                        settled                              |
//!                   +-------------------------------------------------------------+
//! ```
//!
//! A key has at most one message running. Keys take turns: one whose message is done goes behind the others that wait.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll};

use super::{Outcome, Tasks, refuse_zero, run};
use crate::client::consumer::Consumer;
use crate::client::message::ReceivedMessage;
use crate::error::{Error, Result};

/// Messages that were received and whose work has not started, of all keys together. Beyond it nothing is received, so
/// this is how far a key whose work takes long is overtaken by the others.
const WAITING_MAX: usize = 1000;

impl Consumer {
    /// Runs `work` on up to `concurrency` messages at a time, each in a separate task. Messages of one key run one after
    /// another, in the order of delivery; the key is the ordering key, or the key if there is none. A message whose work
    /// failed comes again later, behind others of its key: where they must wait for it, retry within the work. Messages without either run in no
    /// order. The return value of `work` decides whether the message is acknowledged: see [`Outcome`].
    ///
    /// Each key has a queue: work that takes long or never ends occupies one of the `concurrency` tasks and delays the
    /// messages of its key. The other keys continue until 1,000 received messages wait for work; then nothing more is
    /// received until one of these starts. When the consumer has ended, messages that were received are still worked on.
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
    /// - The reason why the consumer has ended.
    /// - [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument): `concurrency` is zero.
    ///
    /// # Cancel safety
    /// Dropping the future aborts the running work; unacknowledged messages are redelivered when this consumer is
    /// closed.
    pub async fn process_by_key<F, Fut>(&mut self, concurrency: usize, work: F) -> Result<()>
    where
        F: Fn(ReceivedMessage) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: Into<Outcome>> + Send,
    {
        refuse_zero("concurrency", concurrency)?;
        let tasks = self.shared().new_tasks();
        let mut pool = Pool { consumer: self, concurrency, work: Arc::new(work), queues: Queues::default(), tasks };
        let error = poll_fn(|cx| pool.poll(cx)).await;
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
    concurrency: usize,
    work: Arc<F>,
    queues: Queues,
    /// Each ends with the key of its message.
    tasks: Tasks<Option<Key>>,
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
            self.start();
            if self.queues.waiting >= if mutation!(StuckKeyStopsAll) { 1 } else { WAITING_MAX } {
                return Poll::Pending;
            }
            match self.consumer.poll_receive(cx) {
                Poll::Ready(Ok(message)) => self.queues.push(message),
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Takes one task that has ended; pending where none has, or none is left.
    fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.tasks.poll_next(cx) {
            Poll::Ready(Some(Some(key))) => self.queues.settled(key),
            // Without a key; or aborted, with the runtime.
            Poll::Ready(Some(None)) => {}
            Poll::Ready(None) | Poll::Pending => return Poll::Pending,
        }
        Poll::Ready(())
    }

    /// Gives messages to concurrency that are free.
    fn start(&mut self) {
        while self.tasks.len() < self.concurrency {
            let Some((key, message)) = self.queues.pop() else { return };
            let (acker, work, given) = (self.consumer.acker(), self.work.clone(), message.clone());
            self.tasks.spawn(async move {
                run(acker, message, || work(given)).await;
                key
            });
        }
    }
}

type Key = Arc<[u8]>;

/// The messages whose work has not started.
#[derive(Default)]
struct Queues {
    /// The keys that have a message waiting or running, with those waiting.
    of_key: HashMap<Key, VecDeque<ReceivedMessage>>,
    /// What may start, in order.
    ready: VecDeque<Ready>,
    waiting: usize,
}

enum Ready {
    /// The next message of a key of which none is running.
    Key(Key),
    Keyless(ReceivedMessage),
}

impl Queues {
    fn push(&mut self, message: ReceivedMessage) {
        self.waiting += 1;
        let Some(key) = message.ordering_key().or_else(|| message.key().map(str::as_bytes)) else {
            self.ready.push_back(Ready::Keyless(message));
            return;
        };
        if let Some(queue) = self.of_key.get_mut(key) {
            queue.push_back(message);
        } else {
            let key: Key = key.into();
            self.ready.push_back(Ready::Key(key.clone()));
            self.of_key.insert(key, VecDeque::from([message]));
        }
    }

    fn pop(&mut self) -> Option<(Option<Key>, ReceivedMessage)> {
        let next = match self.ready.pop_front()? {
            Ready::Keyless(message) => (None, message),
            Ready::Key(key) => {
                // A key is ready once for each time that it has a message and none is running.
                let queue = self.of_key.get_mut(&key)?;
                let message = if mutation!(NewestOfKeyFirst) { queue.pop_back() } else { queue.pop_front() }?;
                if mutation!(TwoOfOneKey) {
                    self.settled(key.clone());
                }
                (Some(key), message)
            }
        };
        self.waiting -= 1;
        Some(next)
    }

    /// The running message of `key` is done.
    fn settled(&mut self, key: Key) {
        if self.of_key.get(&key).is_some_and(|queue| !queue.is_empty()) {
            self.ready.push_back(Ready::Key(key));
        } else {
            self.of_key.remove(&key);
        }
    }
}
