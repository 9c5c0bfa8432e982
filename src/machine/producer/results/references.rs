//! References to results, which are used again.
//!
//! Cloning an `Arc` and dropping it takes a locked instruction each, together a tenth of the cost of a send in a batch; moving one takes
//! none. So the reference of a dropped [`PendingSend`](super::PendingSend) goes to a list of its thread. When the list holds every
//! reference to some results, no other owner exists: the results are made pending again and used for later sends, each of which gets
//! one of the references.
//!
//! ```text
//!      References::open                     of                       give_back
//! Kept ----------------> References -----------------> PendingSend -------------> Kept
//!                            |                                                     ^
//!                            +-----------------------------------------------------+
//!                                                   close
//! ```
//!
//! Without a reference in the list, a send gets a clone. Lists stay incomplete where sends are awaited on another thread than they are
//! made on, and where many producers send in turn. If fewer than [`FOUND_MIN`] of a [`WINDOW`] are complete, the thread fills no lists
//! during a [`PAUSE`]: [`SendResults::is_kept`] is `false` for results opened then, and dropping their sends takes one branch more. The
//! lists are bounded.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::{ResultsKind, SendResults};
use crate::machine::producer::buffers::DeferredDrops;

/// How many references to the same results a thread keeps, 8 bytes each: some more than a batch by default has messages.
const REFERENCES_MAX: usize = 1024;

/// To how many results a thread keeps references.
const KEPT_MAX: usize = 8;

/// Results opened until the share of those that were used again is checked: a task with 5,000 single messages in flight opens 79 before
/// the first are complete.
const WINDOW: u32 = 512;

/// How many of those have to be results used again.
const FOUND_MIN: u32 = WINDOW / 8;

/// Results opened after a window with fewer, until the next window.
const PAUSE: u32 = 8 * WINDOW;

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
    /// Within [`WINDOW`], not within [`PAUSE`].
    is_useful: bool,
    /// Results opened since that began, and how many of them were used again.
    opened: u32,
    found: u32,
}

thread_local! {
    static KEPT: RefCell<Kept> = const { RefCell::new(Kept::new()) };
}

impl Kept {
    const fn new() -> Self {
        Self { last: Vec::new(), others: Vec::new(), empty: Vec::new(), is_useful: true, opened: 0, found: 0 }
    }

    /// | kept last | |
    /// | --- | --- |
    /// | references to the same results | joins them, if they are not too many |
    /// | one reference, to other results | replaces it |
    /// | several | begins anew, and those are among the others |
    #[inline]
    fn put(&mut self, results: Arc<SendResults>) {
        match self.last.as_mut_slice() {
            [.., last] if Arc::ptr_eq(last, &results) => {
                if self.last.len() < REFERENCES_MAX {
                    self.last.push(results);
                }
            }
            [last] => *last = results,
            _ => self.put_first(results),
        }
    }

    #[cold]
    #[inline(never)]
    fn put_first(&mut self, results: Arc<SendResults>) {
        let empty = std::mem::take(&mut self.empty);
        drop(self.set_last(empty));
        self.last.push(results);
    }

    /// What was the last is one of the others from now on. Returned is what is not kept any more.
    fn set_last(&mut self, last: SameResults) -> SameResults {
        let before = std::mem::replace(&mut self.last, last);
        if before.is_empty() {
            self.keep_empty(before);
            return SameResults::new();
        }
        self.others.push(before);
        if self.others.len() > KEPT_MAX { self.others.remove(0) } else { SameResults::new() }
    }

    /// What a producer has not given out joins those to the same results, or is the last. Returned is what is not kept any more.
    fn put_all(&mut self, mut left: SameResults) -> SameResults {
        match (self.last.last(), left.last()) {
            (_, None) => {
                self.keep_empty(left);
                SameResults::new()
            }
            (Some(last), Some(new)) if Arc::ptr_eq(last, new) => {
                self.last.append(&mut left);
                SameResults::new()
            }
            _ => self.set_last(left),
        }
    }

    fn keep_empty(&mut self, empty: SameResults) {
        if empty.capacity() > self.empty.capacity() {
            self.empty = empty;
        }
    }

    /// All references to results of this kind, if a list is complete.
    fn find(&mut self, partition: i32, kind: ResultsKind) -> Option<SameResults> {
        if is_complete(&self.last, partition, kind) {
            return Some(std::mem::take(&mut self.last));
        }
        let at = self.others.iter().position(|references| is_complete(references, partition, kind))?;
        Some(self.others.remove(at))
    }

    /// All references to results that can be used again, or none; and [`SendResults::is_kept`] for new ones.
    fn open(&mut self, partition: i32, kind: ResultsKind) -> Opened {
        let references = self.find(partition, kind).unwrap_or_default();
        let opened = Opened { is_kept: self.is_useful, references };
        self.count(!opened.references.is_empty());
        opened
    }

    fn count(&mut self, is_found: bool) {
        self.opened += 1;
        self.found += u32::from(is_found);
        if self.opened == if self.is_useful { WINDOW } else { PAUSE } {
            self.is_useful = !self.is_useful || self.found >= FOUND_MIN;
            (self.opened, self.found) = (0, 0);
        }
    }
}

/// See [`Kept::open`].
#[derive(Default)]
struct Opened {
    references: SameResults,
    is_kept: bool,
}

/// Whether these are all the references to results of this kind, and one left for a send.
fn is_complete(references: &SameResults, partition: i32, kind: ResultsKind) -> bool {
    let [results, _, ..] = references.as_slice() else { return false };
    results.partition == partition && results.kind == kind && Arc::strong_count(results) == references.len()
}

/// Runs `f` on what the thread keeps; `None` where the thread ends, or where something that `f` drops comes here again.
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

/// References to the results of the batch or group that is open, for each of its sends one. They are dropped with no lock held, because an
/// error of the application's may be among the results.
#[derive(Debug, Default)]
pub(crate) struct References(SameResults);

impl References {
    /// Results without sends.
    pub(crate) fn open(&mut self, partition: i32, kind: ResultsKind, drops: &mut DeferredDrops) -> Arc<SendResults> {
        self.close(drops);
        let Opened { references, is_kept } = with_kept(|kept| kept.open(partition, kind)).unwrap_or_default();
        // Pairs with the release of references that other threads dropped: their reads come before the reset.
        fence(Ordering::Acquire);
        if references.first().is_some_and(|results| results.reset()) {
            self.0 = references;
        } else {
            drops.defer_drop_of_results(references);
        }
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

    /// The batch or group is closed: the rest goes to the lists of this thread.
    #[inline]
    pub(crate) fn close(&mut self, drops: &mut DeferredDrops) {
        if self.0.capacity() > 0 {
            self.close_slow(drops);
        }
    }

    #[inline(never)]
    fn close_slow(&mut self, drops: &mut DeferredDrops) {
        let left = std::mem::take(&mut self.0);
        drops.defer_drop_of_results(with_kept(|kept| kept.put_all(left)).unwrap_or_default());
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

    fn open(references: &mut References, partition: i32, kind: ResultsKind) -> Arc<SendResults> {
        references.open(partition, kind, &mut DeferredDrops::default())
    }

    /// A batch of as many messages, and its results.
    fn batch(references: &mut References, count: u32) -> (Arc<SendResults>, Vec<PendingSend>) {
        let results = open(references, -1, ResultsKind::Batch);
        let sends = (0..count).map(|index| PendingSend::new(references.of(&results), index)).collect();
        references.close(&mut DeferredDrops::default());
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
    fn results_with_an_error_do_not_serve_others() {
        on_a_new_thread(|| {
            let mut references = References::default();
            for kind in [ErrorKind::Closed, ErrorKind::TimedOut] {
                let (failed, sends) = batch(&mut references, 3);
                failed.settle(0, Err(SendError::new(Error::local(kind, "it failed"), false)));
                failed.wake(&mut Deferred::new());
                let seen = sends[2].try_result().and_then(Result::err).map(|error| Error::from(error).kind());
                assert_eq!(seen, Some(kind));
            }
        });
    }

    #[test]
    fn results_with_an_error_of_the_application_are_dropped_later() {
        on_a_new_thread(|| {
            let (mut references, mut drops) = (References::default(), DeferredDrops::default());
            let (failed, sends) = batch(&mut references, 3);
            failed.settle(0, Err(SendError::new(Error::local(ErrorKind::Closed, "closed"), false)));
            let alive = Arc::downgrade(&failed);
            drop((failed, sends));
            references.open(-1, ResultsKind::Batch, &mut drops);
            assert!(alive.upgrade().is_some() && !drops.is_empty());
            drops.drop_all();
            assert!(alive.upgrade().is_none());
        });
    }

    #[test]
    fn results_serve_sends_of_the_same_partition_and_kind() {
        on_a_new_thread(|| {
            let mut references = References::default();
            let (first, sends) = batch(&mut references, 3);
            let address = Arc::as_ptr(&first);
            drop((first, sends));
            assert_ne!(Arc::as_ptr(&open(&mut references, 4, ResultsKind::Batch)), address);
            assert_ne!(Arc::as_ptr(&open(&mut references, -1, ResultsKind::Sends)), address);
            assert_eq!(Arc::as_ptr(&open(&mut references, -1, ResultsKind::Batch)), address);
        });
    }

    #[test]
    fn all_of_several_results_are_pending_again() {
        on_a_new_thread(|| {
            let mut references = References::default();
            let mut sends = || {
                let results = open(&mut references, -1, ResultsKind::Sends);
                [0, 63].map(|slot| (results.clone(), PendingSend::new(references.of(&results), slot)))
            };
            let first = sends();
            let address = Arc::as_ptr(&first[0].0);
            for (slot, (results, _)) in [0, 63].into_iter().zip(&first) {
                results.settle(slot, Ok(Stored { batch_size: 0, ..STORED }));
            }
            assert!(first.iter().all(|(_, send)| send.try_result().is_some()));
            drop(first);
            let second = sends();
            assert_eq!(Arc::as_ptr(&second[0].0), address);
            assert!(second.iter().all(|(_, send)| send.try_result().is_none()));
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
            // So do those of sends that are dropped before.
            let results = open(&mut references, -1, ResultsKind::Batch);
            drop(PendingSend::new(references.of(&results), 0));
            references.close(&mut DeferredDrops::default());
            assert_eq!((kept(), Arc::as_ptr(&results)), (vec![7], address));
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
    fn little_is_kept_of_producers_that_send_in_turn() {
        on_a_new_thread(|| {
            let mut producers = [References::default(), References::default()];
            let in_turn = |producers: &mut [References; 2]| {
                let results = producers.each_mut().map(|references| open(references, -1, ResultsKind::Batch));
                for index in 0..3 {
                    for (references, results) in producers.iter_mut().zip(&results) {
                        drop(PendingSend::new(references.of(results), index));
                    }
                }
                results.map(|results| results.is_kept)
            };
            let opened: Vec<_> = (0..(WINDOW + PAUSE) / 2).flat_map(|_| in_turn(&mut producers)).collect();
            let (window, pause) = opened.split_at(WINDOW as usize);
            assert!(window.iter().all(|is_kept| *is_kept) && !pause.iter().any(|is_kept| *is_kept));
            // Then one sends alone.
            let mut alone = || batch(&mut producers[0], 8).0.is_kept;
            assert!((0..2 * WINDOW).all(|_| alone()));
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
