//! Receipts, refusals, and the end of each send.

use super::Producer;
use super::group::{GroupFrames, GroupKind, PendingEntry, SendGroup};
use super::pipeline::{SealedEntry, is_intact};
use super::results::Stored;
use crate::error::{Error, SendError, ServerCode, ServerError};
use crate::machine::connection::error::ProtocolViolation;
use crate::machine::endpoint::machine::AfterNotification;
use crate::machine::{Deferred, Now};
use crate::wire::hot::Receipt;

/// After this many written entries that timed out with no receipt in between, the connection is to be replaced.
const UNANSWERED_ENTRIES_MAX: u32 = 64;

/// Counts of receipts that came for nothing, or did not come.
#[derive(Debug, Default)]
pub(super) struct ReceiptCounters {
    /// Receipts for nothing that is pending.
    stale: u64,
    /// Written entries that timed out, since the last receipt or attach.
    unanswered_entries: u32,
}

impl ReceiptCounters {
    pub(super) fn stale(&self) -> u64 {
        self.stale
    }

    /// A new connection starts with no doubt about it.
    pub(super) fn on_attached(&mut self) {
        self.unanswered_entries = 0;
    }

    /// A written entry has timed out.
    pub(super) fn count_unanswered(&mut self) {
        self.unanswered_entries = self.unanswered_entries.saturating_add(1);
    }
}

/// What a receipt is for, as seen from the oldest entry that has none.
#[derive(Debug, PartialEq, Eq)]
enum ReceiptMatch {
    /// That entry: it is stored.
    Settles,
    /// An entry that is settled already.
    Stale,
    /// An entry behind it, or one that was never written: the two sides are out of step.
    OutOfOrder,
}

/// Answers of the broker.
impl Producer {
    /// Takes receipts (SEND_RECEIPT) in their order. Brokers confirm entries in the order in which they were written, so
    /// each receipt is held against the oldest entry that has none:
    ///
    /// | receipt | how it comes about | effect |
    /// | --- | --- | --- |
    /// | for the oldest entry | the usual one; also for an entry written to an earlier connection | the entry is settled |
    /// | that, without a position, and it is a chunk | the last chunk was sent again, and the broker knows the message: it says so before it has stored the copies of the others | all its chunks are settled; the receipts of the copies are stale |
    /// | for an earlier one, or nothing is in flight | the entry timed out, or was re-sent and is confirmed twice | counted |
    /// | for a later one | the broker has lost an entry, or has invented one | the connection ends, and what is unanswered is written to the next one |
    ///
    /// Also while detached: receipts that follow a CLOSE_PRODUCER are valid.
    ///
    /// # Errors
    /// A receipt for a later entry. What comes before it is settled.
    pub fn on_receipts(
        &mut self,
        receipts: &[Receipt],
        now: Now,
        deferred: &mut Deferred,
    ) -> Result<(), ProtocolViolation> {
        if self.is_finished() {
            return Ok(());
        }
        if !receipts.is_empty() {
            // Stale ones too show that the connection is alive.
            self.receipts.unanswered_entries = 0;
        }
        let mut result = Ok(());
        for receipt in receipts {
            let Some((group, oldest)) = self.in_flight.front() else {
                self.receipts.stale += 1;
                continue;
            };
            match match_receipt(group.transmitted, oldest, receipt) {
                ReceiptMatch::Settles => self.settle_stored(receipt, now, deferred),
                ReceiptMatch::Stale => self.receipts.stale += 1,
                ReceiptMatch::OutOfOrder => {
                    result = Err(ProtocolViolation::new(format!(
                        "a receipt for sequence ids {} to {} of producer {}, whose oldest unanswered ones are {} to {}",
                        receipt.sequence_id, receipt.highest_sequence_id as i64, self.id, oldest.first, oldest.last
                    )));
                    break;
                }
            }
        }
        if let Some((group, _)) = self.in_flight.front() {
            group.results.wake(deferred);
        }
        self.after_settling(deferred);
        self.advance_close(None, deferred);
        result
    }

    /// Takes a refusal (SEND_ERROR). Refusals overtake receipts, so the entry need not be the oldest; one of a batch is
    /// named by its highest id.
    ///
    /// | refusal | effect |
    /// | --- | --- |
    /// | `TopicTerminatedError` | the producer fails |
    /// | `NotAllowedError` | the entry fails |
    /// | `ChecksumError`, the kept bytes are intact, for the first time | attach afresh: the bytes were damaged on the way |
    /// | `ChecksumError` for the second time, or the kept bytes are damaged | the entry fails: writing it again does not help |
    /// | `ChecksumError`, no such entry | attach afresh |
    /// | any other, attached | attach afresh: the broker has removed the producer, whether or not it says so otherwise |
    /// | any other, not attached | none |
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
        let at = self.in_flight.find(|group, entry| group.transmitted && entry.is_named_by(sequence_id));
        match error.code {
            ServerCode::TOPIC_TERMINATED_ERROR => {
                self.fail(Error::server(error, "a message"), deferred);
                AfterNotification::Stay
            }
            ServerCode::NOT_ALLOWED_ERROR => {
                self.fail_refused(at, error, now, deferred);
                AfterNotification::Stay
            }
            ServerCode::CHECKSUM_ERROR => {
                let is_intact = at.and_then(|at| self.in_flight.frame(at)).is_some_and(|frame| is_intact(&frame));
                match at.and_then(|at| self.in_flight.entry_mut(at)) {
                    Some(entry) if entry.checksum_refused || !is_intact => {
                        self.fail_refused(at, error, now, deferred);
                        AfterNotification::Stay
                    }
                    Some(entry) => {
                        entry.checksum_refused = true;
                        AfterNotification::Reattach(Error::server(error, "a message"))
                    }
                    None => AfterNotification::Reattach(Error::server(error, "a message")),
                }
            }
            _ if self.is_attached() => AfterNotification::Reattach(Error::server(error, "a message")),
            _ => AfterNotification::Stay,
        }
    }

    /// Fails one entry with the broker's refusal.
    fn fail_refused(&mut self, at: Option<usize>, error: ServerError, now: Now, deferred: &mut Deferred) {
        let Some(at) = at else { return };
        let error = Error::server(error, "a message").with_topic(&self.topic);
        // The copy of an entry that was written to an earlier connection may be stored.
        let may_be_stored = self.in_flight.entry_mut(at).is_some_and(|entry| entry.resent);
        self.settle_failed(at, error, may_be_stored, deferred);
        self.after_settling(deferred);
        self.advance_close(Some(now), deferred);
    }

    /// Whether so many entries went unanswered that the connection is to be replaced; says so once.
    pub fn take_wants_reconnect(&mut self) -> bool {
        let wants = self.receipts.unanswered_entries >= UNANSWERED_ENTRIES_MAX && self.is_attached();
        if wants {
            self.receipts.unanswered_entries = 0;
        }
        wants
    }
}

/// The end of sends.
///
/// An entry is settled exactly once: [`settle_stored`](Producer::settle_stored) for the oldest one, which the broker has
/// stored, or [`settle_failed`](Producer::settle_failed) for any. Both do the same five things: take the entry out, give
/// its capacity back, defer its callbacks, publish the result to its [`PendingSend`](super::PendingSend)s, and retire
/// its group if it was the last one. Wakers are deferred later, and together: by the caller of `settle_stored`.
///
/// [`after_settling`](Producer::after_settling) follows once for all entries that were settled together.
impl Producer {
    /// Ends the sends of the oldest entry, which the broker has stored.
    #[inline]
    fn settle_stored(&mut self, receipt: &Receipt, now: Now, deferred: &mut Deferred) {
        // Read where it lies: what is moved through memory shows in the cost of a message.
        let Some(entry) = self.in_flight.front().map(|(_, entry)| *entry) else { return };
        let Some(group) = self.in_flight.pop_front() else { return };
        if group.kind == GroupKind::Chunked {
            return self.settle_chunk(&entry, receipt, now, deferred);
        }
        self.capacity.release(entry.messages, entry.size_bytes);
        self.sequence_ids.note_stored(entry.last);
        self.counters.on_confirmed(&entry);
        group.confirmed_messages += entry.messages;
        let batch_size = if entry.messages > 1 { entry.messages } else { 0 };
        let stored = Stored { ledger_id: receipt.ledger_id, entry_id: receipt.entry_id, batch_size };
        if !group.callbacks.is_empty() {
            defer_callbacks(group, &entry, &Ok(stored), deferred);
        }
        group.results.settle(entry.slot, Ok(stored));
        if let Some(group) = self.in_flight.retire_front() {
            self.counters.on_group_confirmed(&group, now);
            self.retire(group, deferred);
        }
    }

    /// The oldest entry, which is taken out, is a chunk, and stored. The last one ends the send of its message.
    #[cold]
    fn settle_chunk(&mut self, entry: &PendingEntry, receipt: &Receipt, now: Now, deferred: &mut Deferred) {
        let stored = Stored { ledger_id: receipt.ledger_id, entry_id: receipt.entry_id, batch_size: 0 };
        if entry.is_inner_chunk() && is_duplicate(receipt) {
            // Its other chunks are settled like it.
            return self.settle_stored(receipt, now, deferred);
        }
        let Some(group) = self.in_flight.front_group_mut() else { return };
        let (ledger_id, entry_id) = *group.first_chunk.get_or_insert((stored.ledger_id, stored.entry_id));
        self.counters.on_confirmed(entry);
        if entry.is_inner_chunk() {
            return;
        }
        self.capacity.release(entry.messages, entry.size_bytes);
        self.sequence_ids.note_stored(entry.last);
        group.confirmed_messages += entry.messages;
        let first = group.results.id(entry.slot, Stored { ledger_id, entry_id, batch_size: 0 });
        for (slot, callback) in group.callbacks.drain(..) {
            let id = group.results.id(slot, stored).with_first_chunk(&first);
            deferred.run(move || callback.on_sent(Ok(id)));
        }
        group.results.settle_chunked(entry.slot, first, stored);
        if let Some(group) = self.in_flight.retire_front() {
            self.counters.on_group_confirmed(&group, now);
            self.retire(group, deferred);
        }
    }

    /// Ends the sends of the entry at `at` with an error; of a chunk, that of its message.
    pub(super) fn settle_failed(&mut self, at: usize, error: Error, may_be_stored: bool, deferred: &mut Deferred) {
        let Some((entry, group)) = self.in_flight.take_message(at) else { return };
        self.counters.on_failed(&entry, &error);
        let error = SendError::new(error, may_be_stored && !mutation!(SurelyNotStored));
        self.capacity.release(entry.messages, entry.size_bytes);
        defer_callbacks(group, &entry, &Err(error.clone()), deferred);
        group.results.settle(entry.slot, Err(error.clone()));
        group.results.wake(deferred);
        let number = group.number;
        self.flushes.get_or_insert_default().note_failure(entry.index, error.error());
        if let Some(group) = self.in_flight.retire(number) {
            self.retire(group, deferred);
        }
    }

    /// All entries of the group are settled: its buffer is used again, or its payload is dropped.
    fn retire(&mut self, group: SendGroup, deferred: &mut Deferred) {
        group.results.wake(deferred);
        let (buffers, drops) = (&mut self.sealing.buffers, &mut self.sealing.drops);
        match group.frames {
            GroupFrames::Sealed(sealed) => sealed.for_each(|SealedEntry { frame, .. }| match group.kind {
                GroupKind::Framed => buffers.put_payload(frame.head),
                GroupKind::Batch => buffers.put_payload(frame.payload),
                // It may be the application's own.
                GroupKind::Single | GroupKind::Chunked => drops.defer_drop(frame.payload),
            }),
            GroupFrames::Open(frames) => buffers.put(frames),
            GroupFrames::AwaitingSeal => {}
        }
    }

    /// What follows once some entries were settled.
    pub(super) fn after_settling(&mut self, deferred: &mut Deferred) {
        self.sealing.fire_drops(deferred);
        let is_idle = self.is_idle();
        self.sealing.buffers.trim(self.capacity.pool_bytes_max(), is_idle);
        self.complete_flushes(deferred);
        self.capacity.offer(deferred);
        self.check_capacity();
        self.resume_overdue_watch();
    }
}

/// Whether the broker has dropped the entry because it is stored already: the receipt names no position.
fn is_duplicate(receipt: &Receipt) -> bool {
    receipt.ledger_id == u64::MAX
}

/// Defers the callbacks of one entry: all of its group where the entry is a batch, else that of its slot, if it has one.
fn defer_callbacks(
    group: &mut SendGroup,
    entry: &PendingEntry,
    result: &Result<Stored, SendError>,
    deferred: &mut Deferred,
) {
    let SendGroup { results, callbacks, .. } = group;
    // They stand in the order of their slots.
    let of_entry = if entry.messages > 1 {
        0..callbacks.len()
    } else {
        match callbacks.binary_search_by_key(&entry.slot, |(slot, _)| *slot) {
            Ok(at) => at..at + 1,
            Err(_) => return,
        }
    };
    for (slot, callback) in callbacks.drain(of_entry) {
        let (results, result) = (results.clone(), result.clone());
        deferred.run(move || callback.on_sent(result.map(|stored| results.id(slot, stored))));
    }
}

/// What `receipt` is for, given the oldest entry without one, and whether that was written to any connection.
///
/// | sequence id of the receipt | its highest id | receipt is |
/// | --- | --- | --- |
/// | below the lowest of the entry | any | stale |
/// | the lowest or the highest: some brokers name a batch by its last id | none | for it |
/// | the lowest or the highest | the highest of the entry | for it |
/// | the lowest or the highest | another | beyond |
/// | any other, or the entry was never written | any | beyond |
///
/// Brokers write -1 or 0, or nothing at all, for "none": what is not above the sequence id names no other.
#[inline]
fn match_receipt(transmitted: bool, oldest: &PendingEntry, receipt: &Receipt) -> ReceiptMatch {
    let id = receipt.sequence_id;
    if id < oldest.first {
        return ReceiptMatch::Stale;
    }
    if !transmitted || !oldest.is_named_by(id) {
        return ReceiptMatch::OutOfOrder;
    }
    let highest = receipt.highest_sequence_id as i64;
    let is_named = i64::try_from(id).is_ok_and(|id| highest > id);
    if is_named && receipt.highest_sequence_id != oldest.last {
        ReceiptMatch::OutOfOrder
    } else {
        ReceiptMatch::Settles
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(first: u64, last: u64) -> PendingEntry {
        PendingEntry { last, ..PendingEntry::new(first, 0, 0, 0) }
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
            ((5, 5), (5, -1), ReceiptMatch::Settles),
            ((5, 5), (5, 0), ReceiptMatch::Settles),
            ((5, 5), (5, 5), ReceiptMatch::Settles),
            ((5, 5), (5, 6), ReceiptMatch::OutOfOrder),
            ((5, 5), (4, -1), ReceiptMatch::Stale),
            ((5, 5), (6, -1), ReceiptMatch::OutOfOrder),
            ((5, 9), (5, 9), ReceiptMatch::Settles),
            ((5, 9), (5, -1), ReceiptMatch::Settles),
            ((5, 9), (5, 8), ReceiptMatch::OutOfOrder),
            ((5, 9), (9, -1), ReceiptMatch::Settles),
            ((5, 9), (9, 9), ReceiptMatch::Settles),
            ((5, 9), (7, -1), ReceiptMatch::OutOfOrder),
            ((5, 9), (4, 9), ReceiptMatch::Stale),
            ((5, 5), (u64::MAX, -1), ReceiptMatch::OutOfOrder),
        ];
        for ((first, last), (id, highest), expected) in cases {
            assert_eq!(
                match_receipt(true, &entry(first, last), &receipt(id, highest)),
                expected,
                "{first}..{last} {id} {highest}"
            );
        }
        assert_eq!(match_receipt(false, &entry(5, 5), &receipt(5, -1)), ReceiptMatch::OutOfOrder, "never written");
    }
}
