//! Results of sends, as the senders await them.
//!
//! A batch has one result for all its messages. Sends outside batches share one allocation among several, each
//! with a slot, that is a result of its own, and so do the batches of several keys (`slots.rs`). That a send
//! is stored, and where, is read without a lock. Results without other owners, and the references to them, are used again by later
//! sends of the same thread (`references.rs`). Nothing here depends on frames.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::error::SendError;
use crate::id::{MessageId, MessagePosition};
use crate::machine::Deferred;

mod pending;
mod references;
mod slots;

pub use pending::PendingSend;
pub(crate) use references::References;
pub(crate) use slots::SendSlots;

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

/// Called with the result of one send, with no lock held, on the task that drives the connection: it may send more,
/// and must not block. A panic in it is caught.
pub type SendCallback = Box<dyn OnSent>;

/// What gets the result of one send: any closure that takes it.
pub trait OnSent: Send {
    /// The message is stored, or has failed.
    fn on_sent(self: Box<Self>, result: Result<MessageId, SendError>);

    /// The message was not accepted, and the sender is told. For a closure that is nothing.
    fn on_refused(self: Box<Self>, error: &SendError) {
        let _ = error;
    }
}

impl<F: FnOnce(Result<MessageId, SendError>) + Send> OnSent for F {
    fn on_sent(self: Box<Self>, result: Result<MessageId, SendError>) {
        self(result);
    }
}

/// One result.
///
/// ```text
///           settle          settle
/// FAILED <--------- PENDING -------> STORED + messages of the batch, or STORED_IN_CHUNKS
///                      ^                |
///                      +----------------+
///         reset: by the one that has all references
/// ```
///
/// Settled once, under the producer's lock, and the ids before the state. A reader that sees the state (acquire) that
/// was written after them (release) sees the ids as well.
#[derive(Debug)]
struct ResultCell {
    state: AtomicU32,
    ledger_id: AtomicU64,
    entry_id: AtomicU64,
}

const PENDING: u32 = 0;
/// The error is in [`SlowState::failures`].
const FAILED: u32 = 1;
const STORED: u32 = 2;
/// Stored in several chunks; the id of the first is in [`SlowState::first_chunks`]. No batch is so large.
const STORED_IN_CHUNKS: u32 = u32::MAX;

impl ResultCell {
    fn new() -> Self {
        Self { state: AtomicU32::new(PENDING), ledger_id: AtomicU64::new(0), entry_id: AtomicU64::new(0) }
    }

    #[inline]
    fn is_settled(&self) -> bool {
        self.state.load(Ordering::Acquire) != PENDING
    }

    #[inline]
    fn store(&self, stored: Stored) {
        self.store_as(stored, STORED.saturating_add(stored.batch_size));
    }

    #[inline]
    fn store_as(&self, stored: Stored, state: u32) {
        self.ledger_id.store(stored.ledger_id, Ordering::Relaxed);
        self.entry_id.store(stored.entry_id, Ordering::Relaxed);
        self.state.store(state, Ordering::Release);
    }

    /// Where it is stored, once it is.
    #[inline]
    fn stored(&self, batch_size: u32) -> Stored {
        let (ledger_id, entry_id) = (self.ledger_id.load(Ordering::Relaxed), self.entry_id.load(Ordering::Relaxed));
        Stored { ledger_id, entry_id, batch_size }
    }
}

/// For how many more wakers than one there may be room in results that serve other sends.
const WAKERS_KEPT_MAX: usize = 64;

/// What is read only where a task waits for a result, or a send has failed.
#[derive(Default)]
struct SlowState {
    /// Wakers of the tasks that wait, by the slot of the send.
    wakers: SmallList<(u32, Waker)>,
    /// Errors, by the slot of the send.
    failures: Vec<(u32, SendError)>,
    /// Where the first chunk of a chunked message is stored, by the slot of the send.
    first_chunks: Vec<(u32, MessageId)>,
}

impl SlowState {
    /// Whether nothing is left in it, and no room for more than a few wakers.
    fn is_blank(&self) -> bool {
        let few_wakers = self.wakers.is_empty() && self.wakers.others.capacity() <= WAKERS_KEPT_MAX;
        few_wakers && self.failures.is_empty() && self.first_chunks.is_empty()
    }
}

/// A list without order, mostly of no or one element, for which nothing is allocated.
struct SmallList<T> {
    first: Option<T>,
    others: Vec<T>,
}

impl<T> Default for SmallList<T> {
    fn default() -> Self {
        Self { first: None, others: Vec::new() }
    }
}

impl<T> SmallList<T> {
    fn push(&mut self, new: T) {
        match &self.first {
            None => self.first = Some(new),
            Some(_) => self.others.push(new),
        }
    }

    fn is_empty(&self) -> bool {
        self.first.is_none() && self.others.is_empty()
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.first.iter_mut().chain(&mut self.others)
    }

    fn last_mut(&mut self) -> Option<&mut T> {
        self.others.last_mut().or(self.first.as_mut())
    }

    /// Takes all elements out that are wanted.
    fn take_each(&mut self, is_wanted: impl Fn(&T) -> bool, mut take: impl FnMut(T)) {
        if let Some(first) = self.first.take_if(|first| is_wanted(first)) {
            take(first);
        }
        let mut at = 0;
        while let Some(other) = self.others.get(at) {
            if is_wanted(other) {
                take(self.others.swap_remove(at));
            } else {
                at += 1;
            }
        }
    }
}

/// Whose results share an allocation. The number is that of [`member_bits`](Self::member_bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ResultsKind {
    /// The messages of one batch, which have one result.
    Batch = u32::BITS as u8,
    /// [`SEND_SLOTS`](slots::SEND_SLOTS) sends outside batches.
    Sends = 0,
    /// [`KEY_BATCH_SLOTS`](slots::KEY_BATCH_SLOTS) batches of different keys.
    KeyBatches = (u32::BITS - slots::KEY_BATCH_SLOTS.ilog2()) as u8,
}

impl ResultsKind {
    /// How many bits of an index number the members of a batch.
    #[inline]
    fn member_bits(self) -> u32 {
        u32::from(self as u8)
    }

    /// How many results there are.
    fn slots(self) -> u8 {
        match self {
            Self::Batch => 1,
            Self::Sends => slots::SEND_SLOTS,
            Self::KeyBatches => slots::KEY_BATCH_SLOTS,
        }
    }
}

/// The results of several sends. The index of a send says which it has:
///
/// | results | index | slot |
/// | --- | --- | --- |
/// | of a batch | its member | one for all |
/// | of sends outside batches | | the index |
/// | of batches of several keys | the slot, and behind it [`member_bits`](ResultsKind::member_bits) for the member | one for each batch |
///
/// A leaf in the order of locks: its lock is taken under an endpoint's, and no lock is taken under it.
///
/// Its size is fixed, which makes the `Arc` a thin pointer, so that a [`PendingSend`] fits two registers: what is moved
/// through memory shows in the cost of a message.
pub(crate) struct SendResults {
    partition: i32,
    kind: ResultsKind,
    /// Whether threads keep the references to them: see [`references`].
    is_kept: bool,
    slow: Mutex<SlowState>,
    first: ResultCell,
    others: Box<[ResultCell]>,
}

impl SendResults {
    pub(crate) fn new(partition: i32, kind: ResultsKind, is_kept: bool) -> Arc<Self> {
        let others = (1..kind.slots()).map(|_| ResultCell::new()).collect();
        Arc::new(Self { partition, kind, is_kept, slow: Mutex::default(), first: ResultCell::new(), others })
    }

    /// Makes all results pending again. The caller has the only references. `false`, and no change, if wakers, errors or ids of first
    /// chunks are left.
    fn reset(&self) -> bool {
        if !self.slow().is_blank() {
            return false;
        }
        for cell in std::iter::once(&self.first).chain(&self.others) {
            cell.state.store(PENDING, Ordering::Relaxed);
        }
        true
    }

    /// Whether to drop them can only free memory: neither wakers nor errors are among them.
    pub(crate) fn is_blank(&self) -> bool {
        self.slow().is_blank()
    }

    /// The slot of the send at `index`.
    #[inline]
    fn slot(&self, index: u32) -> u32 {
        // Not longer than the index, whose bits may all number members.
        (u64::from(index) >> self.kind.member_bits()) as u32
    }

    /// The index that stands for several members of the batch of `index` in the list of wakers. No send has it.
    fn any_member(&self, index: u32) -> u32 {
        index | self.member_mask()
    }

    #[inline]
    fn member_mask(&self) -> u32 {
        // As above.
        ((1_u64 << self.kind.member_bits()) - 1) as u32
    }

    #[inline]
    fn cell(&self, index: u32) -> &ResultCell {
        match self.slot(index).checked_sub(1) {
            Some(other) => &self.others[other as usize],
            None => &self.first,
        }
    }

    fn slow(&self) -> MutexGuard<'_, SlowState> {
        // No foreign code runs under this lock, so a poisoned one guards a consistent state.
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Settles the send at `index`, or the whole batch; a second result is ignored. The caller holds the producer's
    /// lock, so that settling is not concurrent, and calls [`wake`](Self::wake) once it has settled all there is.
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

    /// Settles the send of a message that is stored in several chunks: `stored` is the last of them.
    #[cold]
    pub(crate) fn settle_chunked(&self, index: u32, first: MessageId, stored: Stored) {
        let cell = self.cell(index);
        if cell.is_settled() {
            debug_assert!(false, "a send is settled once");
            return;
        }
        self.slow().first_chunks.push((self.slot(index), first));
        cell.store_as(stored, STORED_IN_CHUNKS);
    }

    #[cold]
    fn fail(&self, cell: &ResultCell, index: u32, error: SendError) {
        let slot = self.slot(index);
        self.slow().failures.push((slot, error));
        cell.state.store(FAILED, Ordering::Release);
    }

    /// Defers waking the tasks that wait for what is settled by now.
    pub(crate) fn wake(&self, deferred: &mut Deferred) {
        let is_settled = |(waits_for, _): &(u32, Waker)| self.cell(*waits_for).is_settled();
        self.slow().wakers.take_each(is_settled, |(_, waker)| deferred.wake(waker));
    }

    #[inline]
    fn get(&self, index: u32) -> Option<Result<MessageId, SendError>> {
        let cell = self.cell(index);
        let batch_size = match cell.state.load(Ordering::Acquire) {
            PENDING => return None,
            rare @ (FAILED | STORED_IN_CHUNKS) => return Some(self.rare_result(index, rare)),
            stored => stored - STORED,
        };
        Some(Ok(self.id(index, cell.stored(batch_size))))
    }

    /// Apart, so that what waits for a result stays small enough to become part of its caller.
    #[cold]
    #[inline(never)]
    fn rare_result(&self, index: u32, state: u32) -> Result<MessageId, SendError> {
        if state == FAILED {
            return Err(self.failure(index));
        }
        let (slot, id) = (self.slot(index), self.id(index, self.cell(index).stored(0)));
        let slow = self.slow();
        let first = slow.first_chunks.iter().find(|(chunked, _)| *chunked == slot);
        Ok(first.map_or(id.clone(), |(_, first)| id.with_first_chunk(first)))
    }

    fn failure(&self, index: u32) -> SendError {
        let slot = self.slot(index);
        let slow = self.slow();
        let failure = slow.failures.iter().find(|(failed, _)| *failed == slot);
        failure.map(|(_, error)| error.clone()).expect("the error is stored before the state")
    }

    /// The id that the sender of message `index` sees.
    #[inline]
    pub(crate) fn id(&self, index: u32, stored: Stored) -> MessageId {
        let mut at = MessagePosition::new(stored.ledger_id, stored.entry_id);
        at.partition = self.partition;
        if stored.batch_size > 0 {
            at.batch_index = i32::try_from(index & self.member_mask()).unwrap_or(i32::MAX);
            at.batch_size = i32::try_from(stored.batch_size).unwrap_or(i32::MAX);
        }
        MessageId::from_position(at)
    }

    /// Registers `waker`, unless the result is there by now: then `false`. Settling takes the lock after the result is
    /// set, to wake: either it finds the waker, or the check here finds the result.
    ///
    /// | registered before | effect |
    /// | --- | --- |
    /// | a waker for this send | replaced, if it belongs to another task |
    /// | of a batch: the same task for another member, as the last | stands for several members from now on |
    /// | otherwise | added |
    ///
    /// All members of a batch are woken together, so that one registration of a task does for many members. A waker
    /// that stands for several members is not replaced when one of them moves to another task.
    #[inline(never)]
    fn wait(&self, index: u32, waker: &Waker) -> bool {
        let new = waker.clone();
        let mut slow = self.slow();
        if self.cell(index).is_settled() {
            drop(slow);
            return false;
        }
        let is_same = |(last, task): &&mut (u32, Waker)| self.slot(*last) == self.slot(index) && task.will_wake(waker);
        let wakers = &mut slow.wakers;
        let replaced = if let Some((_, old)) = wakers.iter_mut().find(|(waits_for, _)| *waits_for == index) {
            Some(if old.will_wake(waker) { new } else { std::mem::replace(old, new) })
        } else if let Some((waits_for, _)) = wakers.last_mut().filter(|last| is_same(last)) {
            *waits_for = self.any_member(index);
            Some(new)
        } else {
            wakers.push((index, new));
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

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake};

    use super::slots::KEY_BATCH_SLOTS;
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
        let results = SendResults::new(3, ResultsKind::Batch, false);
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut sends: Vec<_> = (0..3).map(|index| PendingSend::new(results.clone(), index)).collect();
        for send in &mut sends {
            assert!(Pin::new(send).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        assert_eq!(results.slow().wakers.iter_mut().count(), 1, "one task is registered once");
        let stored = Stored { ledger_id: 7, entry_id: 9, batch_size: 3 };
        results.settle(0, Ok(stored));
        results.wake(&mut Deferred::new());
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        let id =
            sends[2].try_result().and_then(Result::ok).map(|id| (id.partition(), id.batch_index(), id.batch_size()));
        assert_eq!(id, Some((Some(3), Some(2), Some(3))));
    }

    #[test]
    fn batches_of_several_keys_settle_one_by_one() {
        let mut slots = SendSlots::new(-1, ResultsKind::KeyBatches);
        let batches: Vec<_> = (0..=KEY_BATCH_SLOTS).map(|_| slots.take_batch()).collect();
        assert!(Arc::ptr_eq(&batches[0].0, &batches[7].0) && !Arc::ptr_eq(&batches[0].0, &batches[8].0));
        let count = Arc::new(Count::default());
        let members = |(results, first): &(Arc<SendResults>, u32)| {
            [0, 1].map(|member| PendingSend::new(results.clone(), first + member))
        };
        let (mut early, mut late) = (members(&batches[0]), members(&batches[7]));
        for send in early.iter_mut().chain(&mut late) {
            assert!(poll(send, &count).is_pending());
        }
        let (results, first) = &batches[7];
        results.settle(*first, Ok(Stored { ledger_id: 7, entry_id: 9, batch_size: 2 }));
        results.wake(&mut Deferred::new());
        assert!(count.0.load(Ordering::Relaxed) > 0);
        assert!(early.iter().all(|send| send.try_result().is_none()));
        let id = late[1].try_result().and_then(Result::ok).map(|id| (id.entry_id(), id.batch_index(), id.batch_size()));
        assert_eq!(id, Some((Some(9), Some(1), Some(2))));
    }

    #[test]
    fn sends_outside_batches_settle_one_by_one() {
        let results = SendResults::new(-1, ResultsKind::Sends, false);
        let counts = [Arc::new(Count::default()), Arc::new(Count::default())];
        let mut sends = [PendingSend::new(results.clone(), 0), PendingSend::new(results.clone(), 63)];
        for (send, count) in sends.iter_mut().zip(&counts) {
            assert!(poll(send, count).is_pending());
            assert!(poll(send, count).is_pending());
        }
        results.settle(63, Ok(Stored { ledger_id: 1, entry_id: 2, batch_size: 0 }));
        results.wake(&mut Deferred::new());
        let woken = |at: usize| counts[at].0.load(Ordering::Relaxed);
        assert_eq!((woken(0), woken(1)), (0, 1));
        assert!(sends[0].try_result().is_none());
        assert!(matches!(poll(&mut sends[1], &counts[1]), Poll::Ready(Ok(id)) if id == MessageId::new(1, 2)));
    }

    #[test]
    fn a_member_moved_to_another_task_leaves_its_neighbours_to_the_first_one() {
        let results = SendResults::new(-1, ResultsKind::Batch, false);
        let (mut first, mut second) = (PendingSend::new(results.clone(), 0), PendingSend::new(results.clone(), 1));
        let (old, new) = (Arc::new(Count::default()), Arc::new(Count::default()));
        assert!(poll(&mut first, &old).is_pending());
        assert!(poll(&mut second, &old).is_pending());
        assert!(poll(&mut first, &new).is_pending());
        results.settle(0, Ok(Stored { ledger_id: 1, entry_id: 2, batch_size: 2 }));
        results.wake(&mut Deferred::new());
        assert_eq!((old.0.load(Ordering::Relaxed), new.0.load(Ordering::Relaxed)), (1, 1));
    }

    #[test]
    fn a_send_moved_to_another_task_wakes_that_one() {
        let results = SendResults::new(-1, ResultsKind::Sends, false);
        let mut send = PendingSend::new(results.clone(), 5);
        let (old, new) = (Arc::new(Count::default()), Arc::new(Count::default()));
        assert!(poll(&mut send, &old).is_pending());
        assert!(poll(&mut send, &new).is_pending());
        results.settle(5, Ok(Stored { ledger_id: 1, entry_id: 2, batch_size: 0 }));
        results.wake(&mut Deferred::new());
        assert_eq!((old.0.load(Ordering::Relaxed), new.0.load(Ordering::Relaxed)), (0, 1));
    }
}
