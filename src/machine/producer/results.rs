//! What becomes of sends: one shared result for a run of them, awaited by [`PendingSend`]s.
//!
//! A batch has one result for all its messages; sends outside batches share one allocation among 64,
//! each with a result of its own. That a send is stored, and where, is read without a lock. Nothing here knows what a
//! frame is.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::error::SendError;
use crate::id::{MessageId, MessagePosition};
use crate::machine::Deferred;

/// How many sends outside batches share one allocation.
pub(crate) const RUN_SENDS_MAX: u32 = 64;

/// Waits for several members of a batch. No send has this index.
const ANY_MEMBER: u32 = u32::MAX;

/// Where the broker stored an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    /// `MessageIdData.ledgerId`.
    pub(crate) ledger_id: u64,
    /// `MessageIdData.entryId`.
    pub(crate) entry_id: u64,
    /// Messages of the batch; 0 for a message outside a batch.
    pub(crate) batch_size: u32,
}

/// Called with what became of one send, with no lock held, on the task that drives the connection: it may send more,
/// and must not block. A panic in it is contained.
pub type SendCallback = Box<dyn FnOnce(Result<MessageId, SendError>) + Send>;

/// What became of one send.
///
/// ```text
///           settle          settle
/// FAILED <--------- PENDING -------> STORED + messages of the batch
/// ```
///
/// Written once, under the producer's lock, and the ids before the state: who reads the state (acquire) that was
/// written after them (release) sees them whole.
#[derive(Debug)]
struct Cell {
    state: AtomicU32,
    ledger_id: AtomicU64,
    entry_id: AtomicU64,
}

const PENDING: u32 = 0;
/// Why is in [`Slow::failures`].
const FAILED: u32 = 1;
const STORED: u32 = 2;

impl Cell {
    fn new() -> Self {
        Self { state: AtomicU32::new(PENDING), ledger_id: AtomicU64::new(0), entry_id: AtomicU64::new(0) }
    }

    #[inline]
    fn is_settled(&self) -> bool {
        self.state.load(Ordering::Acquire) != PENDING
    }

    #[inline]
    fn store(&self, stored: Stored) {
        self.ledger_id.store(stored.ledger_id, Ordering::Relaxed);
        self.entry_id.store(stored.entry_id, Ordering::Relaxed);
        self.state.store(STORED.saturating_add(stored.batch_size), Ordering::Release);
    }
}

/// What is looked at only where somebody waits or something failed.
#[derive(Default)]
struct Slow {
    /// Who waits, by the index of the send.
    waiting: Few<(u32, Waker)>,
    /// What failed, by the index of the send.
    failures: Vec<(u32, SendError)>,
}

/// Mostly none or one, for which nothing is allocated.
struct Few<T> {
    first: Option<T>,
    others: Vec<T>,
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self { first: None, others: Vec::new() }
    }
}

impl<T> Few<T> {
    fn push(&mut self, new: T) {
        match &self.first {
            None => self.first = Some(new),
            Some(_) => self.others.push(new),
        }
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.first.iter_mut().chain(&mut self.others)
    }

    fn last_mut(&mut self) -> Option<&mut T> {
        self.others.last_mut().or(self.first.as_mut())
    }

    /// Takes one out that `wanted` says yes to.
    fn take(&mut self, wanted: impl Fn(&T) -> bool) -> Option<T> {
        if self.first.as_ref().is_some_and(&wanted) {
            return self.first.take();
        }
        let at = self.others.iter().position(wanted)?;
        Some(self.others.swap_remove(at))
    }
}

/// The results of a run of sends: one for all of them (a batch), or one each.
///
/// A leaf in the order of locks: its lock is taken under an endpoint's, and nothing is taken under it.
///
/// Of a size that is known, so that a [`PendingSend`] fits two registers: what is moved through memory shows in the cost
/// of a message.
pub(crate) struct SendResults {
    partition: i32,
    slow: Mutex<Slow>,
    first: Cell,
    /// None of a batch, else [`RUN_SENDS_MAX`] less one.
    others: Box<[Cell]>,
}

impl SendResults {
    /// One result for all messages of a batch.
    pub(crate) fn of_batch(partition: i32) -> Arc<Self> {
        Self::new(partition, 0)
    }

    /// A result each for up to [`RUN_SENDS_MAX`] sends.
    pub(crate) fn of_run(partition: i32) -> Arc<Self> {
        Self::new(partition, RUN_SENDS_MAX - 1)
    }

    fn new(partition: i32, others: u32) -> Arc<Self> {
        let others = (0..others).map(|_| Cell::new()).collect();
        Arc::new(Self { partition, slow: Mutex::default(), first: Cell::new(), others })
    }

    #[inline]
    fn is_shared(&self) -> bool {
        self.others.is_empty()
    }

    /// Where the result of the send at `index` is.
    #[inline]
    fn place(&self, index: u32) -> u32 {
        if self.is_shared() { 0 } else { index }
    }

    #[inline]
    fn cell(&self, index: u32) -> &Cell {
        match self.place(index).checked_sub(1) {
            Some(other) => &self.others[other as usize],
            None => &self.first,
        }
    }

    fn slow(&self) -> MutexGuard<'_, Slow> {
        // No code of others runs under this lock, so a poisoned one is still whole.
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Settles the send at `index`, or the whole batch; a second result is ignored. The caller holds the producer's
    /// lock, so that nobody else settles, and calls [`wake`](Self::wake) when it has settled what there is to settle.
    #[inline]
    pub(crate) fn settle(&self, index: u32, result: Result<Stored, SendError>) {
        let cell = self.cell(index);
        if cell.is_settled() {
            debug_assert!(false, "a send is settled once");
            return;
        }
        match result {
            Ok(stored) => cell.store(stored),
            Err(error) => self.fail(cell, index, error),
        }
    }

    #[cold]
    fn fail(&self, cell: &Cell, index: u32, error: SendError) {
        let place = self.place(index);
        self.slow().failures.push((place, error));
        cell.state.store(FAILED, Ordering::Release);
    }

    /// Deferred, by `wakes`, whoever waits for what is settled by now.
    pub(crate) fn wake(&self, deferred: &mut Deferred) {
        let mut slow = self.slow();
        while let Some((_, waker)) = slow.waiting.take(|(waits_for, _)| self.cell(*waits_for).is_settled()) {
            deferred.wake(waker);
        }
    }

    #[inline]
    fn get(&self, index: u32) -> Option<Result<MessageId, SendError>> {
        let cell = self.cell(index);
        let batch_size = match cell.state.load(Ordering::Acquire) {
            PENDING => return None,
            FAILED => return Some(Err(self.failure(index))),
            stored => stored - STORED,
        };
        let (ledger_id, entry_id) = (cell.ledger_id.load(Ordering::Relaxed), cell.entry_id.load(Ordering::Relaxed));
        Some(Ok(self.id(index, Stored { ledger_id, entry_id, batch_size })))
    }

    #[cold]
    fn failure(&self, index: u32) -> SendError {
        let place = self.place(index);
        let slow = self.slow();
        let failure = slow.failures.iter().find(|(failed, _)| *failed == place);
        failure.map(|(_, error)| error.clone()).expect("it is noted before the state says so")
    }

    /// The id that the sender of message `index` sees.
    #[inline]
    pub(crate) fn id(&self, index: u32, stored: Stored) -> MessageId {
        let mut at = MessagePosition::new(stored.ledger_id, stored.entry_id);
        at.partition = self.partition;
        if stored.batch_size > 0 {
            at.batch_index = i32::try_from(index).unwrap_or(i32::MAX);
            at.batch_size = i32::try_from(stored.batch_size).unwrap_or(i32::MAX);
        }
        MessageId::at(at)
    }

    /// Leaves `waker`, unless the result is there by now: then `false`. Whoever settles takes the lock after that, to
    /// wake, so it either sees the waker or is seen by the second look here.
    fn wait(&self, index: u32, waker: &Waker) -> bool {
        let new = waker.clone();
        let mut slow = self.slow();
        if self.cell(index).is_settled() {
            drop(slow);
            return false;
        }
        let is_shared = self.is_shared();
        let waiting = &mut slow.waiting;
        let replaced = if let Some((_, old)) = waiting.iter_mut().find(|(waits_for, _)| *waits_for == index) {
            Some(if old.will_wake(waker) { new } else { std::mem::replace(old, new) })
        } else if let Some((waits_for, _)) = waiting.last_mut().filter(|(_, last)| is_shared && last.will_wake(waker)) {
            // All members of a batch are woken at once, so a task waiting for many of them is noted once: then for no
            // one in particular, because a member that moves to another task must not take the note along.
            *waits_for = ANY_MEMBER;
            Some(new)
        } else {
            waiting.push((index, new));
            None
        };
        drop(slow);
        drop(replaced);
        true
    }
}

impl fmt::Debug for SendResults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SendResults")
    }
}

/// A send on its way: ends with the id of the stored message, or with why there is none.
///
/// The message is sent whether or not this is awaited, and dropping it costs nothing: the send goes on.
///
/// # Cancel safety
/// Cancel safe: it may be polled, dropped or moved to another task at any time.
#[must_use = "a failed send is noticed by awaiting this, by a callback, or by flush"]
pub struct PendingSend {
    outcomes: Arc<SendResults>,
    index: u32,
}

impl PendingSend {
    pub(crate) fn new(outcomes: Arc<SendResults>, index: u32) -> Self {
        Self { outcomes, index }
    }

    /// The result, if it is there; never waits.
    #[inline]
    pub fn try_result(&self) -> Option<Result<MessageId, SendError>> {
        self.outcomes.get(self.index)
    }
}

impl Future for PendingSend {
    type Output = Result<MessageId, SendError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            if let Some(result) = self.try_result() {
                return Poll::Ready(result);
            }
            if self.outcomes.wait(self.index, cx.waker()) {
                return Poll::Pending;
            }
        }
    }
}

impl fmt::Debug for PendingSend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PendingSend({:?})", self.try_result())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn poll(send: &mut PendingSend, count: &Arc<Count>) -> Poll<Result<MessageId, SendError>> {
        Pin::new(send).poll(&mut Context::from_waker(&Waker::from(count.clone())))
    }

    #[test]
    fn a_batch_settles_all_its_members_at_once() {
        let outcomes = SendResults::of_batch(3);
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut sends: Vec<_> = (0..3).map(|index| PendingSend::new(outcomes.clone(), index)).collect();
        for send in &mut sends {
            assert!(Pin::new(send).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        assert_eq!(outcomes.slow().waiting.iter_mut().count(), 1, "one task is noted once");
        let stored = Stored { ledger_id: 7, entry_id: 9, batch_size: 3 };
        outcomes.settle(0, Ok(stored));
        outcomes.wake(&mut Deferred::new());
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        let id =
            sends[2].try_result().and_then(Result::ok).map(|id| (id.partition(), id.batch_index(), id.batch_size()));
        assert_eq!(id, Some((Some(3), Some(2), Some(3))));
    }

    #[test]
    fn a_run_settles_each_send_alone() {
        let outcomes = SendResults::of_run(-1);
        let counts = [Arc::new(Count::default()), Arc::new(Count::default())];
        let mut sends = [PendingSend::new(outcomes.clone(), 0), PendingSend::new(outcomes.clone(), 63)];
        for (send, count) in sends.iter_mut().zip(&counts) {
            assert!(poll(send, count).is_pending());
            assert!(poll(send, count).is_pending());
        }
        outcomes.settle(63, Ok(Stored { ledger_id: 1, entry_id: 2, batch_size: 0 }));
        outcomes.wake(&mut Deferred::new());
        let woken = |at: usize| counts[at].0.load(Ordering::Relaxed);
        assert_eq!((woken(0), woken(1)), (0, 1));
        assert!(sends[0].try_result().is_none());
        assert!(matches!(poll(&mut sends[1], &counts[1]), Poll::Ready(Ok(id)) if id == MessageId::new(1, 2)));
    }

    #[test]
    fn a_member_moved_to_another_task_leaves_its_neighbours_to_the_first_one() {
        let outcomes = SendResults::of_batch(-1);
        let (mut first, mut second) = (PendingSend::new(outcomes.clone(), 0), PendingSend::new(outcomes.clone(), 1));
        let (old, new) = (Arc::new(Count::default()), Arc::new(Count::default()));
        assert!(poll(&mut first, &old).is_pending());
        assert!(poll(&mut second, &old).is_pending());
        assert!(poll(&mut first, &new).is_pending());
        outcomes.settle(0, Ok(Stored { ledger_id: 1, entry_id: 2, batch_size: 2 }));
        outcomes.wake(&mut Deferred::new());
        assert_eq!((old.0.load(Ordering::Relaxed), new.0.load(Ordering::Relaxed)), (1, 1));
    }

    #[test]
    fn a_send_moved_to_another_task_wakes_that_one() {
        let outcomes = SendResults::of_run(-1);
        let mut send = PendingSend::new(outcomes.clone(), 5);
        let (old, new) = (Arc::new(Count::default()), Arc::new(Count::default()));
        assert!(poll(&mut send, &old).is_pending());
        assert!(poll(&mut send, &new).is_pending());
        outcomes.settle(5, Ok(Stored { ledger_id: 1, entry_id: 2, batch_size: 0 }));
        outcomes.wake(&mut Deferred::new());
        assert_eq!((old.0.load(Ordering::Relaxed), new.0.load(Ordering::Relaxed)), (0, 1));
    }
}
