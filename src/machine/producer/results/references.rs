//! References to results, which are used again.
//!
//! To count a reference takes a locked instruction, and so does to drop it: together a tenth of what a send in a batch costs. To move
//! one takes none. So a thread keeps the references of the sends that it is done with. Once it has all those to some results, nobody
//! else can see these, and they serve other sends, each of which gets one of the references.
//!
//! ```text
//!      References::open                     of                       give_back
//! Kept ----------------> References -----------------> PendingSend -------------> Kept
//!                            |                                                     ^
//!                            +-----------------------------------------------------+
//!                                                   close
//! ```
//!
//! Where a send is awaited on another thread than the next one is made on, the references of that thread are of no use: what is kept
//! is bounded, and the rest is dropped. Where many producers send in turn, each send that is dropped is of other results than the one
//! before. A thread that sees this keeps nothing, but for an attempt now and then: [`SendResults::is_kept`] is decided when they are
//! opened, so that no send of the others looks here.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::{ResultsKind, SendResults};

/// How many references to the same results a thread keeps, 8 bytes each: those of the largest batches by default, and one more.
const REFERENCES_MAX: usize = 1024;

/// To how many results a thread keeps references.
const KEPT_MAX: usize = 8;

/// After how many sends in a row, each of other results than the one before, a thread keeps no references.
const MISSES_MAX: u32 = 64;

/// Of how many results one is kept nevertheless, to see whether that is so still.
const ATTEMPT_INTERVAL: u32 = 16;

/// References to the same results.
type SameResults = Vec<Arc<SendResults>>;

/// What a thread keeps.
struct Kept {
    /// References to the results of the send that was dropped last.
    last: SameResults,
    /// References to other results, those of the earliest first.
    others: Vec<SameResults>,
    /// An empty one, for the next results.
    empty: SameResults,
    /// Sends in a row that were of other results than the one before.
    misses: u32,
    /// Results opened.
    opened: u32,
}

thread_local! {
    static KEPT: RefCell<Kept> = const { RefCell::new(Kept::new()) };
}

impl Kept {
    const fn new() -> Self {
        Self { last: Vec::new(), others: Vec::new(), empty: Vec::new(), misses: 0, opened: 0 }
    }

    /// | kept last | |
    /// | --- | --- |
    /// | references to the same results | joins them, if they are not too many |
    /// | one reference, to other results | replaces it: where each send is of other results than the one before, there is nothing to gain |
    /// | several | begins anew, and those are among the others |
    #[inline]
    fn put(&mut self, results: Arc<SendResults>) {
        match self.last.as_mut_slice() {
            [.., last] if Arc::ptr_eq(last, &results) => {
                self.misses = 0;
                if self.last.len() < REFERENCES_MAX {
                    self.last.push(results);
                }
            }
            [last] => {
                self.misses = self.misses.saturating_add(1);
                *last = results;
            }
            _ => self.put_first(results),
        }
    }

    #[cold]
    #[inline(never)]
    fn put_first(&mut self, results: Arc<SendResults>) {
        let empty = std::mem::take(&mut self.empty);
        self.set_last(empty);
        self.last.push(results);
    }

    /// What was the last is one of the others from now on.
    fn set_last(&mut self, last: SameResults) {
        let before = std::mem::replace(&mut self.last, last);
        if before.is_empty() {
            return self.keep_empty(before);
        }
        if self.others.len() == KEPT_MAX {
            self.others.remove(0);
        }
        self.others.push(before);
    }

    fn keep_empty(&mut self, empty: SameResults) {
        if empty.capacity() > self.empty.capacity() {
            self.empty = empty;
        }
    }

    /// Whether the references to results that are made now are to be kept.
    fn is_useful(&mut self) -> bool {
        self.opened = self.opened.wrapping_add(1);
        self.misses < MISSES_MAX || self.opened % ATTEMPT_INTERVAL == 0
    }

    /// All references to results that are pending again.
    fn take(&mut self, partition: i32, kind: ResultsKind) -> Option<SameResults> {
        if is_complete(&self.last, partition, kind) {
            return Some(std::mem::take(&mut self.last)).filter(reset);
        }
        let at = self.others.iter().position(|references| is_complete(references, partition, kind))?;
        Some(self.others.remove(at)).filter(reset)
    }
}

/// Whether these are all the references to results of this kind, and one left for a send.
fn is_complete(references: &SameResults, partition: i32, kind: ResultsKind) -> bool {
    let [results, _, ..] = references.as_slice() else { return false };
    results.partition == partition && results.kind == kind && Arc::strong_count(results) == references.len()
}

/// Of results that [`is_complete`].
fn reset(references: &SameResults) -> bool {
    // Behind what other threads did with references that they dropped, which released it.
    fence(Ordering::Acquire);
    references.first().is_some_and(|results| results.reset())
}

/// What a thread keeps, unless it ends, or what was dropped here has dropped something that comes here again.
fn with_kept<T>(f: impl FnOnce(&mut Kept) -> T) -> Option<T> {
    KEPT.try_with(|kept| Some(f(&mut *kept.try_borrow_mut().ok()?))).ok().flatten()
}

/// A send is dropped.
#[inline]
pub(super) fn give_back(results: Arc<SendResults>) {
    if results.is_kept {
        with_kept(|kept| kept.put(results));
    }
}

/// The references to the results of the sends that are made now, for each of these one.
#[derive(Debug, Default)]
pub(crate) struct References(SameResults);

impl References {
    /// Results without sends.
    pub(crate) fn open(&mut self, partition: i32, kind: ResultsKind) -> Arc<SendResults> {
        let kept = with_kept(|kept| (kept.take(partition, kind), kept.is_useful()));
        let (references, is_kept) = kept.unwrap_or_default();
        self.0 = references.unwrap_or_default();
        self.0.pop().unwrap_or_else(|| SendResults::new(partition, kind, is_kept))
    }

    /// A reference to `results`.
    #[inline]
    pub(crate) fn of(&mut self, results: &Arc<SendResults>) -> Arc<SendResults> {
        match self.0.last() {
            Some(last) if Arc::ptr_eq(last, results) => self.0.pop().expect("it has a last one"),
            _ => results.clone(),
        }
    }

    /// There are no more sends for now: what is left is the thread's again.
    #[inline]
    pub(crate) fn close(&mut self) {
        if self.0.capacity() > 0 {
            self.close_slow();
        }
    }

    #[inline(never)]
    fn close_slow(&mut self) {
        let left = std::mem::take(&mut self.0);
        with_kept(|kept| match left.is_empty() {
            true => kept.keep_empty(left),
            false => kept.set_last(left),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind, SendError};
    use crate::machine::Deferred;
    use crate::machine::producer::results::{PendingSend, Stored};

    const STORED: Stored = Stored { ledger_id: 7, entry_id: 9, batch_size: 3 };

    /// Nothing is kept there yet.
    fn on_a_new_thread<T: Send>(test: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| scope.spawn(test).join()).expect("no panic")
    }

    /// A batch of as many messages, and its results.
    fn batch(references: &mut References, count: u32) -> (Arc<SendResults>, Vec<PendingSend>) {
        let results = references.open(-1, ResultsKind::Batch);
        let sends = (0..count).map(|index| PendingSend::new(references.of(&results), index)).collect();
        references.close();
        (results, sends)
    }

    fn kept() -> Vec<usize> {
        with_kept(|kept| kept.others.iter().chain([&kept.last]).map(Vec::len).collect()).expect("it is not borrowed")
    }

    #[test]
    fn results_of_sends_that_are_dropped_serve_others_from_the_start() {
        on_a_new_thread(|| {
            let mut references = References::default();
            let (first, sends) = batch(&mut references, 3);
            first.settle(0, Ok(STORED));
            assert!(sends.iter().all(|send| send.try_result().is_some()));
            let address = Arc::as_ptr(&first);
            drop((first, sends));
            let (second, sends) = batch(&mut references, 3);
            assert_eq!(Arc::as_ptr(&second), address);
            assert!(sends.iter().all(|send| send.try_result().is_none()));
            // One of the three is that of the batch, so that a third send has a reference more.
            assert_eq!(Arc::strong_count(&second), 4);
            second.settle(0, Ok(Stored { ledger_id: 8, ..STORED }));
            assert_eq!(sends[2].try_result().and_then(Result::ok).and_then(|id| id.ledger_id()), Some(8));
        });
    }

    #[test]
    fn results_that_somebody_holds_do_not_serve_others() {
        on_a_new_thread(|| {
            let mut references = References::default();
            let (first, mut sends) = batch(&mut references, 3);
            first.settle(0, Ok(STORED));
            let held = sends.pop().expect("there are three");
            drop((first, sends));
            let (second, _sends) = batch(&mut references, 3);
            second.settle(0, Ok(Stored { ledger_id: 8, ..STORED }));
            assert_eq!(held.try_result().and_then(Result::ok).and_then(|id| id.ledger_id()), Some(7));
        });
    }

    #[test]
    fn results_with_an_error_or_of_another_kind_do_not_serve_others() {
        on_a_new_thread(|| {
            let mut references = References::default();
            let (failed, sends) = batch(&mut references, 3);
            let error = SendError::new(Error::local(ErrorKind::Closed, "closed"), false);
            failed.settle(0, Err(error));
            failed.wake(&mut Deferred::new());
            drop((failed, sends));
            let (second, sends) = batch(&mut references, 3);
            assert!(sends.iter().all(|send| send.try_result().is_none()));
            let address = Arc::as_ptr(&second);
            drop((second, sends));
            assert_ne!(Arc::as_ptr(&references.open(4, ResultsKind::Batch)), address);
            assert_ne!(Arc::as_ptr(&references.open(-1, ResultsKind::Sends)), address);
            assert_eq!(Arc::as_ptr(&references.open(-1, ResultsKind::Batch)), address);
        });
    }

    #[test]
    fn what_a_batch_leaves_comes_together_with_what_its_sends_had() {
        on_a_new_thread(|| {
            let mut references = References::default();
            drop(batch(&mut references, 9));
            // Eight are left, beside that of the batch.
            let (results, sends) = batch(&mut references, 2);
            let address = Arc::as_ptr(&results);
            drop((results, sends));
            assert_eq!(kept(), [8]);
            assert_eq!(Arc::as_ptr(&batch(&mut references, 8).0), address);
        });
    }

    #[test]
    fn what_a_thread_keeps_is_bounded() {
        on_a_new_thread(|| {
            let sends = |count| batch(&mut References::default(), count).1;
            drop(sends(2 * REFERENCES_MAX as u32));
            assert_eq!(kept(), [REFERENCES_MAX]);
            let all: Vec<_> = (0..3 * KEPT_MAX).map(|_| sends(5)).collect();
            drop(all);
            assert_eq!(kept(), [5; KEPT_MAX + 1]);
        });
    }

    #[test]
    fn nothing_is_kept_of_producers_that_send_in_turn() {
        on_a_new_thread(|| {
            let mut producers = [References::default(), References::default()];
            let in_turn = |producers: &mut [References; 2]| {
                let results = producers.each_mut().map(|references| references.open(-1, ResultsKind::Batch));
                for index in 0..MISSES_MAX {
                    for (references, results) in producers.iter_mut().zip(&results) {
                        drop(PendingSend::new(references.of(results), index));
                    }
                }
                results.map(|results| results.is_kept)
            };
            assert_eq!(in_turn(&mut producers), [true; 2]);
            assert_eq!(in_turn(&mut producers), [false; 2]);
            // Then one sends alone, and an attempt shows it.
            let alone = |_| batch(&mut producers[0], 8).0.is_kept;
            let is_kept: Vec<_> = (0..=ATTEMPT_INTERVAL).map(alone).collect();
            assert!(!is_kept[0] && is_kept[ATTEMPT_INTERVAL as usize], "{is_kept:?}");
        });
    }

    #[test]
    fn sends_may_be_dropped_on_another_thread() {
        on_a_new_thread(|| {
            let (results, sends) = batch(&mut References::default(), 3);
            let elsewhere = move || {
                drop(sends);
                kept()
            };
            assert_eq!(on_a_new_thread(elsewhere), [3]);
            // That thread has ended, and with it what it kept.
            assert_eq!(Arc::strong_count(&results), 1);
            assert_eq!(kept(), [0]);
        });
    }
}
