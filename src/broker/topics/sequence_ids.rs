//! The sequence ids of one topic by producer name: what deduplication has stored, and what the conformance checks saw.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Producer names whose sequence ids are remembered; beyond it the first ones by name are forgotten.
const NAMES_MAX: usize = 10_000;

/// Sent frames remembered for each producer name, to tell re-sends from repeated ids.
const SENT_FRAMES_MAX: usize = 4_096;

/// What a name takes without its letters and its frames, and each of these, bytes.
const ENTRY_BYTES: usize = 128;
const FRAME_BYTES: usize = 16;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct SequenceIds {
    /// Highest sequence id stored.
    stored: BTreeMap<Arc<str>, i64>,
    sent: BTreeMap<Arc<str>, SentSequence>,
    /// What is in `sent`, about.
    sent_bytes: usize,
}

impl SequenceIds {
    /// Highest sequence id stored of this producer, −1 for none.
    pub(crate) fn last_stored(&self, producer: &str) -> i64 {
        self.stored.get(producer).copied().unwrap_or(-1)
    }

    pub(crate) fn note_stored(&mut self, producer: &Arc<str>, id: i64) {
        if let Some(highest) = self.stored.get_mut(producer) {
            *highest = (*highest).max(id);
            return;
        }
        if self.stored.len() >= NAMES_MAX {
            self.stored.pop_first();
        }
        self.stored.insert(Arc::clone(producer), id);
    }

    /// Deduplication is off: it forgets what it has stored.
    pub(crate) fn forget_stored(&mut self) {
        self.stored.clear();
    }

    /// A producer with no past: its ids may begin anywhere.
    pub(crate) fn start(&mut self, producer: Arc<str>, epoch: u64) {
        self.forget_sent(&producer);
        if self.sent.len() >= NAMES_MAX {
            if let Some((name, forgotten)) = self.sent.pop_first() {
                self.sent_bytes -= forgotten.bytes(&name);
            }
        }
        let sent = SentSequence { epoch, ..SentSequence::default() };
        self.sent_bytes += sent.bytes(&producer);
        self.sent.insert(producer, sent);
    }

    /// Nothing is known of what this producer sent.
    pub(crate) fn forget_sent(&mut self, producer: &str) {
        if let Some(forgotten) = self.sent.remove(producer) {
            self.sent_bytes -= forgotten.bytes(producer);
        }
    }

    /// How much is kept of what producers sent, bytes, about.
    #[cfg(feature = "tap")]
    pub(crate) fn sent_bytes(&self) -> usize {
        self.sent_bytes
    }

    /// The highest `epoch` this producer brought, if it is known.
    pub(crate) fn epoch(&self, producer: &str) -> Option<u64> {
        self.sent.get(producer).map(|sent| sent.epoch)
    }

    pub(crate) fn raise_epoch(&mut self, producer: &str, epoch: u64) {
        if let Some(sent) = self.sent.get_mut(producer) {
            sent.epoch = sent.epoch.max(epoch);
        }
    }

    /// Notes a SEND; false if its id neither grows nor belongs to the same bytes as before.
    pub(crate) fn note_sent(&mut self, producer: &str, frame: &SentFrame) -> bool {
        let Some(sent) = self.sent.get_mut(producer) else { return true };
        let before = sent.bytes(producer);
        let is_fine = sent.note(frame);
        self.sent_bytes = self.sent_bytes + sent.bytes(producer) - before;
        is_fine
    }
}

/// What distinguishes one SEND from another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SentFrame {
    pub(crate) sequence_id: i64,
    /// Of a batch the id of its last message, else the same.
    pub(crate) highest_sequence_id: i64,
    pub(crate) crc32c: u32,
    pub(crate) is_chunk: bool,
}

/// What one producer sent.
#[derive(Debug, Default)]
struct SentSequence {
    epoch: u64,
    last: Option<i64>,
    /// Sequence ids and checksums, oldest first.
    frames: VecDeque<(i64, u32)>,
}

impl SentSequence {
    /// With its name.
    fn bytes(&self, name: &str) -> usize {
        ENTRY_BYTES + name.len() + self.frames.len() * FRAME_BYTES
    }

    /// An id that grows is new; the chunks of a message share theirs. Any other one has to be a re-send: the same id
    /// over the same bytes. What is older than the frames remembered counts as one.
    fn note(&mut self, frame: &SentFrame) -> bool {
        let id = frame.sequence_id;
        let is_new = self.last.is_none_or(|last| id > last || (frame.is_chunk && id == last));
        if !is_new {
            let is_full = self.frames.len() >= SENT_FRAMES_MAX;
            let is_forgotten = is_full && self.frames.front().is_some_and(|oldest| oldest.0 > id);
            return is_forgotten || self.frames.iter().rev().any(|known| *known == (id, frame.crc32c));
        }
        self.last = Some(frame.highest_sequence_id.max(id));
        if self.frames.len() >= SENT_FRAMES_MAX {
            self.frames.pop_front();
        }
        self.frames.push_back((id, frame.crc32c));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_id_is_a_resend_only_with_the_same_bytes() {
        let mut sent = SentSequence::default();
        let mut note = |sequence_id, highest_sequence_id, crc32c, is_chunk| {
            sent.note(&SentFrame { sequence_id, highest_sequence_id, crc32c, is_chunk })
        };
        assert!(note(0, 0, 10, false) && note(1, 4, 11, false));
        assert!(note(1, 4, 11, false), "the same bytes again");
        assert!(!note(1, 4, 12, false), "other bytes under an id that was used");
        assert!(!note(3, 3, 13, false), "inside the range of the batch");
        assert!(note(5, 5, 14, true) && note(5, 5, 15, true), "chunks share their id");
    }
}
