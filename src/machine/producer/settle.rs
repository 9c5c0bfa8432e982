//! Receipts, refusals, and the end of each send.

use super::batcher::discard;
use super::in_flight::Entry;
use super::seal::is_intact;
use super::{AfterSendError, Life, Link, Producer};
use crate::error::{Error, SendError, ServerCode, ServerError};
use crate::machine::control::Violation;
use crate::machine::outcomes::Stored;
use crate::machine::sabotage::{self, Sabotage};
use crate::machine::{Now, Wakes};
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
    pub fn on_receipts(&mut self, run: &[Receipt], wakes: &mut Wakes) -> Result<(), Violation> {
        if self.is_finished() {
            return Ok(());
        }
        if !run.is_empty() {
            // Late ones too show that the connection is alive.
            self.unanswered_frames = 0;
        }
        let mut result = Ok(());
        for receipt in run {
            let Some(head) = self.in_flight.front() else {
                self.stale_receipts += 1;
                continue;
            };
            match fit(head, receipt) {
                Fit::Settles => {
                    let Some(entry) = self.in_flight.pop_front() else { break };
                    self.last_published = self.last_published.max(Some(entry.last));
                    let batch_size = if entry.messages > 1 { entry.messages } else { 0 };
                    let stored = Stored { ledger_id: receipt.ledger_id, entry_id: receipt.entry_id, batch_size };
                    self.settle(entry, Ok(stored), wakes);
                }
                Fit::Stale => self.stale_receipts += 1,
                Fit::Beyond => {
                    result = Err(Violation::new(format!(
                        "a receipt for sequence ids {} to {} of producer {}, whose oldest unanswered ones are {} to {}",
                        receipt.sequence_id, receipt.highest_sequence_id as i64, self.id, head.first, head.last
                    )));
                    break;
                }
            }
        }
        self.after_settling(wakes);
        self.advance_close(None, wakes);
        result
    }

    /// Takes a refusal (SEND_ERROR). They overtake receipts, so the entry need not be the oldest; one of a batch goes
    /// by its highest id.
    pub fn on_send_error(
        &mut self,
        sequence_id: u64,
        error: ServerError,
        now: Now,
        wakes: &mut Wakes,
    ) -> AfterSendError {
        if self.is_finished() {
            return AfterSendError::Stay;
        }
        let number = self.in_flight.find(|entry| entry.transmitted && entry.covers(sequence_id));
        match error.code {
            ServerCode::TOPIC_TERMINATED_ERROR => {
                self.fail(Error::server(error, "a message"), wakes);
                AfterSendError::Stay
            }
            ServerCode::NOT_ALLOWED_ERROR => {
                self.refuse(number, error, now, wakes);
                AfterSendError::Stay
            }
            ServerCode::CHECKSUM_ERROR => match number.and_then(|number| self.in_flight.get_mut(number)) {
                // Bytes that changed here cannot be mended by a re-send, and neither, it seems, can the way there
                // when it spoils the same frame twice.
                Some(entry) if entry.doubted || !entry.frame.as_ref().is_some_and(is_intact) => {
                    self.refuse(number, error, now, wakes);
                    AfterSendError::Stay
                }
                Some(entry) => {
                    entry.doubted = true;
                    AfterSendError::Reattach
                }
                None => AfterSendError::Reattach,
            },
            // The broker has done away with the producer, though it may not say so in any other way.
            _ if self.link == Link::Attached => AfterSendError::Reattach,
            _ => AfterSendError::Stay,
        }
    }

    /// Fails one entry with the broker's refusal.
    fn refuse(&mut self, number: Option<u64>, error: ServerError, now: Now, wakes: &mut Wakes) {
        let Some(entry) = number.and_then(|number| self.in_flight.remove(number)) else { return };
        let error = Error::server(error, "a message").with_topic(&self.topic);
        // Of an entry that goes out again, an earlier copy may be stored.
        let may_be_stored = entry.resent;
        self.settle(entry, Err(SendError::new(error, may_be_stored)), wakes);
        self.after_settling(wakes);
        self.advance_close(Some(now), wakes);
    }

    /// Ends the sends of one entry, which has left the queue.
    pub(super) fn settle(&mut self, entry: Entry, result: Result<Stored, SendError>, wakes: &mut Wakes) {
        self.room.release(entry.messages, entry.size_bytes);
        let result = match result {
            Err(error) if sabotage::is(Sabotage::SurelyNotStored) => Err(SendError::new(error.error().clone(), false)),
            result => result,
        };
        if let Err(error) = &result {
            self.note_failure(entry.index, error.error());
        }
        for (index, callback) in entry.callbacks {
            let result = entry.outcomes.resolve(index, &result);
            wakes.run(move || callback(result));
        }
        entry.outcomes.settle(entry.slot, result, wakes);
        match entry.frame {
            Some(frame) if entry.messages > 1 => self.spares.put_payload(frame.payload),
            Some(frame) => discard(frame.payload, &mut self.spent),
            None => {}
        }
    }

    /// To be called once some entries were settled.
    pub(super) fn after_settling(&mut self, wakes: &mut Wakes) {
        if !self.spent.is_empty() {
            let spent = std::mem::take(&mut self.spent);
            wakes.run(move || drop(spent));
        }
        self.answer_flushes(wakes);
        self.offer_room(wakes);
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

    pub(super) fn answer_flushes(&mut self, wakes: &mut Wakes) {
        if self.flushes.is_empty() {
            return;
        }
        let unsettled = self.in_flight.front().map(|entry| entry.index);
        let unsettled = unsettled.or_else(|| self.open.as_ref().map(|batch| batch.index)).unwrap_or(self.accepted);
        while self.flushes.front().is_some_and(|flush| flush.target <= unsettled) {
            let Some(flush) = self.flushes.pop_front() else { break };
            flush.reply.answer(flush.failure.map_or(Ok(()), Err), wakes);
        }
        debug_assert!(
            self.flushes.is_empty() || !matches!(self.life, Life::Finished(_)),
            "nothing is unsettled once it is over"
        );
    }
}

impl Entry {
    /// Whether a broker that names this id means this entry.
    fn covers(&self, sequence_id: u64) -> bool {
        sequence_id == self.first || sequence_id == self.last
    }
}

fn fit(head: &Entry, receipt: &Receipt) -> Fit {
    let id = receipt.sequence_id;
    if id < head.first {
        if sabotage::is(Sabotage::StaleReceiptIsCurrent) {
            return Fit::Settles;
        }
        return Fit::Stale;
    }
    // Never handed to any connection: it cannot be meant.
    if !head.transmitted || !head.covers(id) {
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
    use crate::machine::outcomes::Outcomes;

    fn entry(first: u64, last: u64) -> Entry {
        Entry {
            number: 0,
            first,
            last,
            index: 0,
            messages: 1,
            size_bytes: 0,
            deadline: None,
            outcomes: Outcomes::of_batch(-1),
            slot: 0,
            callbacks: Vec::new(),
            frame: None,
            compared_bytes: 0,
            transmitted: true,
            resent: false,
            doubted: false,
        }
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
            assert_eq!(fit(&entry(first, last), &receipt(id, highest)), expected, "{first}..{last} {id} {highest}");
        }
        let unsent = Entry { transmitted: false, ..entry(5, 5) };
        assert_eq!(fit(&unsent, &receipt(5, -1)), Fit::Beyond);
    }
}
