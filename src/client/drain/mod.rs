//! The orderly end: receive no more, finish what is in hand, confirm what was acknowledged, send what was accepted, close;
//! all of it within one limit.
//!
//! ```text
//!  consumers: stop receiving -> work in hand ends -> dead letters are stored -> acknowledgements, CLOSE_CONSUMER
//!                                                                                           |
//!  producers:                                    what was accepted is stored, CLOSE_PRODUCER <
//!                                                                                           |
//!  the client:                                                                   connections <
//! ```
//!
//! Producers come behind the consumers because work on a message may send others. The work has the limit but for a
//! [reserve](reserve), which the closes need: without it the acknowledgements of what was done would be lost with what was not.
//!
//! When the application has a message in hand is known of worker pools, which count. Of a receive it is known as far as
//! the next call says that the message before is done with: see [`ConsumerShared::has_message_in_hand`].

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use super::consumer_shared::ConsumerShared;
use super::parts::all;
use super::producer_shared::ProducerShared;
use super::runtime::AsyncTimer;
use super::{Shared, clock};
use crate::error::Result;
use crate::machine::consumer::Consumer as Machine;

mod in_hand;
mod report;

pub(super) use in_hand::{Held, InHand, PoolHand};
pub use report::DrainReport;

/// The most time that is kept for the closes.
const RESERVE_MAX: Duration = Duration::from_secs(5);

/// The part of the limit that is kept for the closes, if that is less.
const RESERVE_DIVISOR: u32 = 4;

/// A limit beyond the range of the clock is this.
const LIMIT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

fn reserve(limit: Duration) -> Duration {
    (limit / RESERVE_DIVISOR).min(RESERVE_MAX)
}

/// Until when a drain may take.
pub(super) struct Limit {
    timer: Box<dyn AsyncTimer>,
    /// The work in hand.
    work_ends_at: Instant,
    ends_at: Instant,
}

impl Limit {
    pub(super) fn new(client: &Shared, limit: Duration) -> Self {
        let (now, limit) = (clock::now().at, limit.min(LIMIT_MAX));
        Self { timer: client.new_timer(), work_ends_at: now + (limit - reserve(limit)), ends_at: now + limit }
    }

    /// The output of `future` if it is ready by `at`. If both are due, the output wins.
    async fn until<T>(&mut self, at: Instant, future: impl Future<Output = T>) -> Option<T> {
        self.timer.reset(at);
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => self.timer.poll(cx).map(|()| None),
        })
        .await
    }

    async fn work<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let at = if mutation!(DrainWithoutLimit) { self.ends_at + LIMIT_MAX } else { self.work_ends_at };
        self.until(at, future).await
    }

    async fn close<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        self.until(self.ends_at, future).await
    }
}

impl DrainReport {
    fn set_closed(&mut self, closed: Option<Result<()>>) {
        match closed {
            Some(result) => self.error = result.err(),
            None => self.open = 1,
        }
    }
}

/// Drains a consumer. `waits_for_receive`: the application may be in a receive, or at work on what that returned.
pub(super) async fn drain_consumer(shared: &ConsumerShared, waits_for_receive: bool, mut limit: Limit) -> DrainReport {
    let mut report = DrainReport::default();
    shared.stop_receiving();
    let has_receiver_message = || waits_for_receive && shared.has_message_in_hand();
    let in_hand = shared.in_hand();
    let is_done = || mutation!(DrainWithoutWork) || (in_hand.count() == 0 && !has_receiver_message());
    // Asked once: a receive that waits is woken by the stop, and until it returns its end it counts as one with a message.
    if limit.work(in_hand.wait_until(is_done)).await.is_none() {
        let count = in_hand.count();
        report.in_hand = if count == 0 { usize::from(has_receiver_message()) } else { count };
    }
    if let Some(letters) = &shared.dead_letters {
        let letters = letters.in_hand();
        limit.work(letters.wait_until(|| letters.count() == 0)).await;
        report.dead_letters = letters.count();
    }
    report.set_closed(limit.close(all(shared.close())).await);
    report.unconfirmed_acks = shared.parts.iter().map(|part| part.read(Machine::unconfirmed_acks)).sum();
    report
}

/// Drains a producer.
pub(super) async fn drain_producer(shared: &ProducerShared, mut limit: Limit) -> DrainReport {
    let (before, mut report) = (shared.stats(), DrainReport::default());
    report.set_closed(limit.close(all(shared.parts().close())).await);
    let after = shared.stats();
    report.pending_sends = after.pending_messages;
    report.failed_sends = after.failed_messages - before.failed_messages;
    report
}

/// Drains all consumers of a client, then all producers, then closes the client.
pub(super) async fn drain_client(client: &super::Client, limit: Duration) -> DrainReport {
    let (shared, mut report) = (&client.shared, DrainReport::default());
    let mut total = Limit::new(shared, limit);
    let (consumers, producers) = (shared.handles().consumers(), shared.handles().producers());
    let drains = consumers.iter().map(|consumer| drain_consumer(consumer, true, Limit::new(shared, limit)));
    join(drains.collect(), &mut report).await;
    let left = total.ends_at.saturating_duration_since(clock::now().at);
    let drains = producers.iter().map(|producer| drain_producer(producer, Limit::new(shared, left)));
    join(drains.collect(), &mut report).await;
    let mut closed = DrainReport::default();
    closed.set_closed(total.close(client.close()).await);
    report.add(closed);
    report
}

/// Polls all of them, and adds their reports.
async fn join<F: Future<Output = DrainReport>>(drains: Vec<F>, report: &mut DrainReport) {
    let mut running: Vec<Pin<Box<F>>> = drains.into_iter().map(Box::pin).collect();
    poll_fn(|cx| {
        running.retain_mut(|drain| match drain.as_mut().poll(cx) {
            Poll::Ready(done) => {
                report.add(done);
                false
            }
            Poll::Pending => true,
        });
        if running.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// The producers and consumers of a client, for its drain.
#[derive(Default)]
pub(super) struct Handles {
    producers: Mutex<Vec<Weak<ProducerShared>>>,
    consumers: Mutex<Vec<Weak<ConsumerShared>>>,
}

impl Handles {
    pub(super) fn add_producer(&self, producer: &Arc<ProducerShared>) {
        add(&self.producers, producer);
    }

    pub(super) fn add_consumer(&self, consumer: &Arc<ConsumerShared>) {
        add(&self.consumers, consumer);
    }

    fn producers(&self) -> Vec<Arc<ProducerShared>> {
        living(&self.producers)
    }

    fn consumers(&self) -> Vec<Arc<ConsumerShared>> {
        living(&self.consumers)
    }
}

fn add<T>(handles: &Mutex<Vec<Weak<T>>>, handle: &Arc<T>) {
    let mut handles = handles.lock().unwrap_or_else(PoisonError::into_inner);
    // Before it grows, what was dropped makes room.
    if handles.len() == handles.capacity() {
        handles.retain(|handle| handle.strong_count() > 0);
    }
    handles.push(Arc::downgrade(handle));
}

fn living<T>(handles: &Mutex<Vec<Weak<T>>>) -> Vec<Arc<T>> {
    handles.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect()
}
