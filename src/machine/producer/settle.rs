//! Receipts, refusals, and the end of each send.

use super::batcher::discard;
use super::in_flight::{Entry, Frames, Kind, Run};
use super::pipeline::{SealedEntry, is_intact};
use super::{Life, Link, Producer};
use crate::error::{Error, SendError, ServerCode, ServerError};
use crate::machine::connection::peer::ProtocolViolation;
use crate::machine::endpoint::machine::AfterNotification;
use crate::machine::producer::results::Stored;
use crate::machine::{Deferred, Now};
use crate::wire::hot::Receipt;

/// What a receipt says about the oldest unanswered entry.
#[derive(Debug, PartialEq, Eq)]
enum Fit {
    /// It is stored.
    Settles,
    /// The receipt is for something that is settled already.
    Stale,
    /// The receipt is for something behind it: the two sides are out of step.
    Beyond,
}

impl Producer {
    /// Takes receipts (SEND_RECEIPT) in their order. Each settles the oldest unanswered entry, or is of an earlier one
    /// and only counted. One for a later entry is an `Err`: the connection ends, and what is unanswered goes out again.
    ///
    /// Also while detached: receipts that follow a CLOSE_PRODUCER are real.
    pub fn on_receipts(&mut self, run: &[Receipt], deferred: &mut Deferred) -> Result<(), ProtocolViolation> {
        if self.is_finished() {
            return Ok(());
        }
        if !run.is_empty() {
            // Late ones too show that the connection is alive.
            self.unanswered_frames = 0;
        }
        let mut result = Ok(());
        for receipt in run {
            let Some((oldest, head)) = self.in_flight.front() else {
                self.stale_receipts += 1;
                continue;
            };
            match fit(oldest.transmitted, head, receipt) {
                Fit::Settles => self.settle_stored(receipt, deferred),
                Fit::Stale => self.stale_receipts += 1,
                Fit::Beyond => {
                    result = Err(ProtocolViolation::new(format!(
                        "a receipt for sequence ids {} to {} of producer {}, whose oldest unanswered ones are {} to {}",
                        receipt.sequence_id, receipt.highest_sequence_id as i64, self.id, head.first, head.last
                    )));
                    break;
                }
            }
        }
        if let Some((run, _)) = self.in_flight.front() {
            run.outcomes.wake(deferred);
        }
        self.after_settling(deferred);
        self.advance_close(None, deferred);
        result
    }

    /// Takes a refusal (SEND_ERROR). They overtake receipts, so the entry need not be the oldest; one of a batch goes
    /// by its highest id.
    pub fn on_send_error(
        &mut self,
        sequence_id: u64,
        error: ServerError,
        now: Now,
        deferred: &mut Deferred,
    ) -> AfterNotification {
        if self.is_finished() {
            return AfterNotification::Stay;
        }
        let at = self.in_flight.find(|run, entry| run.transmitted && entry.covers(sequence_id));
        match error.code {
            ServerCode::TOPIC_TERMINATED_ERROR => {
                self.fail(Error::server(error, "a message"), deferred);
                AfterNotification::Stay
            }
            ServerCode::NOT_ALLOWED_ERROR => {
                self.refuse(at, error, now, deferred);
                AfterNotification::Stay
            }
            ServerCode::CHECKSUM_ERROR => {
                let intact = at.and_then(|at| self.in_flight.frame(at)).is_some_and(|frame| is_intact(&frame));
                match at.and_then(|at| self.in_flight.entry_mut(at)) {
                    // Bytes that changed here cannot be mended by a re-send, and neither, it seems, can the way there
                    // when it spoils the same frame twice.
                    Some(entry) if entry.doubted || !intact => {
                        self.refuse(at, error, now, deferred);
                        AfterNotification::Stay
                    }
                    Some(entry) => {
                        entry.doubted = true;
                        AfterNotification::Reattach
                    }
                    None => AfterNotification::Reattach,
                }
            }
            // The broker has done away with the producer, though it may not say so in any other way.
            _ if self.link == Link::Attached => AfterNotification::Reattach,
            _ => AfterNotification::Stay,
        }
    }

    /// Fails one entry with the broker's refusal.
    fn refuse(&mut self, at: Option<usize>, error: ServerError, now: Now, deferred: &mut Deferred) {
        let Some(at) = at else { return };
        let error = Error::server(error, "a message").with_topic(&self.topic);
        // Of an entry that goes out again, an earlier copy may be stored.
        let may_be_stored = self.in_flight.entry_mut(at).is_some_and(|entry| entry.resent);
        self.settle_failed(at, SendError::new(error, may_be_stored), deferred);
        self.after_settling(deferred);
        self.advance_close(Some(now), deferred);
    }

    /// Ends the sends of the oldest entry, which the broker has stored.
    #[inline]
    fn settle_stored(&mut self, receipt: &Receipt, deferred: &mut Deferred) {
        let Some((entry, run)) = self.in_flight.take_front() else { return };
        self.room.release(entry.messages, entry.size_bytes);
        self.last_published = self.last_published.max(Some(entry.last));
        let batch_size = if entry.messages > 1 { entry.messages } else { 0 };
        let stored = Stored { ledger_id: receipt.ledger_id, entry_id: receipt.entry_id, batch_size };
        if !run.callbacks.is_empty() {
            call_back(run, &entry, &Ok(stored), deferred);
        }
        run.outcomes.settle(entry.slot, Ok(stored));
        if let Some(run) = self.in_flight.retire_front() {
            self.retire(run, deferred);
        }
    }

    /// Ends the sends of the entry at `at` with what went wrong.
    pub(super) fn settle_failed(&mut self, at: usize, error: SendError, deferred: &mut Deferred) {
        let error = if mutation!(SurelyNotStored) { SendError::new(error.error().clone(), false) } else { error };
        let Some((entry, run)) = self.in_flight.take(at) else { return };
        self.room.release(entry.messages, entry.size_bytes);
        call_back(run, &entry, &Err(error.clone()), deferred);
        run.outcomes.settle(entry.slot, Err(error.clone()));
        run.outcomes.wake(deferred);
        let number = run.number;
        self.note_failure(entry.index, error.error());
        if let Some(run) = self.in_flight.retire(number) {
            self.retire(run, deferred);
        }
    }

    /// Nothing is left of the run.
    fn retire(&mut self, run: Run, deferred: &mut Deferred) {
        run.outcomes.wake(deferred);
        match run.frames {
            Frames::Sealed(frames) => frames.for_each(|SealedEntry { frame, .. }| match run.kind {
                Kind::Framed => self.spares.put_payload(frame.head),
                Kind::Batch => self.spares.put_payload(frame.payload),
                Kind::Alone => discard(frame.payload, &mut self.spent),
            }),
            Frames::Open(frames) => self.spares.put(frames),
            Frames::Awaited => {}
        }
    }

    /// To be called once some entries were settled.
    pub(super) fn after_settling(&mut self, deferred: &mut Deferred) {
        if !self.spent.is_empty() {
            let spent = std::mem::take(&mut self.spent);
            deferred.run(move || drop(spent));
        }
        if self.is_idle() {
            self.spares.trim();
        }
        self.answer_flushes(deferred);
        self.offer_room(deferred);
        self.check_ledger();
    }

    /// A failure belongs to the first flush that waits for it, or, if there is none yet, to the next one.
    fn note_failure(&mut self, index: u64, error: &Error) {
        let failure = match self.flushes.iter_mut().find(|flush| flush.target > index) {
            Some(flush) => &mut flush.failure,
            None => &mut self.failure,
        };
        failure.get_or_insert_with(|| error.clone());
    }

    /// Flushes whose callers gave up make way, so that there are no more than callers; the failure that one of them
    /// would have reported goes to the next.
    pub(super) fn prune_flushes(&mut self) {
        let mut failure = None;
        self.flushes.retain_mut(|flush| {
            if flush.reply.is_abandoned() {
                failure = failure.take().or(flush.failure.take());
                return false;
            }
            flush.failure = failure.take().or(flush.failure.take());
            true
        });
        self.failure = failure.or(self.failure.take());
    }

    pub(super) fn answer_flushes(&mut self, deferred: &mut Deferred) {
        if self.flushes.is_empty() {
            return;
        }
        let unsettled = self.in_flight.front().map(|(_, entry)| entry.index);
        let unsettled = unsettled.or_else(|| self.open.as_ref().map(|batch| batch.index)).unwrap_or(self.accepted);
        while self.flushes.front().is_some_and(|flush| flush.target <= unsettled) {
            let Some(flush) = self.flushes.pop_front() else { break };
            flush.reply.answer(flush.failure.map_or(Ok(()), Err), deferred);
        }
        debug_assert!(
            self.flushes.is_empty() || !matches!(self.life, Life::Finished(_)),
            "nothing is unsettled once it is over"
        );
    }
}

/// Has the callbacks of one entry called, once no lock is held.
fn call_back(run: &mut Run, entry: &Entry, result: &Result<Stored, SendError>, deferred: &mut Deferred) {
    let outcomes = run.outcomes.clone();
    let called = |(index, _): &(u32, _)| entry.messages > 1 || *index == entry.slot;
    while let Some(at) = run.callbacks.iter().position(called) {
        let Some((index, callback)) = run.callbacks.remove(at) else { break };
        let result = result.clone().map(|stored| outcomes.id(index, stored));
        deferred.run(move || callback(result));
    }
}

impl Entry {
    /// Whether a broker that names this id means this entry.
    fn covers(&self, sequence_id: u64) -> bool {
        sequence_id == self.first || sequence_id == self.last
    }
}

#[inline]
fn fit(transmitted: bool, head: &Entry, receipt: &Receipt) -> Fit {
    let id = receipt.sequence_id;
    if id < head.first {
        return Fit::Stale;
    }
    // Never handed to any connection: it cannot be meant.
    if !transmitted || !head.covers(id) {
        return Fit::Beyond;
    }
    // Brokers write -1 or 0, or nothing at all, for "none". Some name a batch by its last id.
    let highest = receipt.highest_sequence_id as i64;
    let named = i64::try_from(id).is_ok_and(|id| highest > id);
    if named && receipt.highest_sequence_id != head.last { Fit::Beyond } else { Fit::Settles }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(first: u64, last: u64) -> Entry {
        Entry { last, ..Entry::new(first, 0, 0, 0) }
    }

    fn receipt(sequence_id: u64, highest_sequence_id: i64) -> Receipt {
        Receipt {
            producer_id: 0,
            sequence_id,
            highest_sequence_id: highest_sequence_id as u64,
            ledger_id: 1,
            entry_id: 1,
        }
    }

    #[test]
    fn receipts_fit_their_entry_and_no_other() {
        let cases = [
            ((5, 5), (5, -1), Fit::Settles),
            ((5, 5), (5, 0), Fit::Settles),
            ((5, 5), (5, 5), Fit::Settles),
            ((5, 5), (5, 6), Fit::Beyond),
            ((5, 5), (4, -1), Fit::Stale),
            ((5, 5), (6, -1), Fit::Beyond),
            ((5, 9), (5, 9), Fit::Settles),
            ((5, 9), (5, -1), Fit::Settles),
            ((5, 9), (5, 8), Fit::Beyond),
            ((5, 9), (9, -1), Fit::Settles),
            ((5, 9), (9, 9), Fit::Settles),
            ((5, 9), (7, -1), Fit::Beyond),
            ((5, 9), (4, 9), Fit::Stale),
            ((5, 5), (u64::MAX, -1), Fit::Beyond),
        ];
        for ((first, last), (id, highest), expected) in cases {
            assert_eq!(
                fit(true, &entry(first, last), &receipt(id, highest)),
                expected,
                "{first}..{last} {id} {highest}"
            );
        }
        assert_eq!(fit(false, &entry(5, 5), &receipt(5, -1)), Fit::Beyond, "never sent");
    }
}
