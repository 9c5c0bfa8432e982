//! ACK frames: what waits, as it is written.

use super::{Acks, EntryPosition};
use crate::machine::endpoint::outbox::Outbox;
use crate::wire::{AckFrame, AckId, AckWords, put_ack};

/// About how large an ACK frame may get, bytes; a single id with a larger set passes.
const ACK_FRAME_BYTES_MAX: usize = 64 * 1024;

impl Acks {
    /// Writes what waits, about `out.quantum_bytes` of it at most. True if nothing is left.
    pub(in crate::machine::consumer) fn transmit(&mut self, consumer_id: u64, out: &mut Outbox<'_>) -> bool {
        let start = out.tx.len();
        let within = |out: &Outbox<'_>| out.tx.len() - start < out.quantum_bytes;
        self.transmit_damaged(consumer_id, out);
        if let Some(ack) = self.cumulative.take() {
            let ids = [ack.position.ack_id(ack.ack_set)];
            put(out, consumer_id, true, &ids, None);
            self.written += 1;
        }
        self.collect_unsent();
        let mut sent = 0;
        while sent < self.ids.len() && within(out) {
            let count = ids_of_a_frame(&self.ids[sent..]);
            put(out, consumer_id, false, &self.ids[sent..sent + count], None);
            sent += count;
        }
        self.ids.drain(..sent);
        self.written += sent as u64;
        if !self.ids.is_empty() {
            return false;
        }
        self.highest = EntryPosition::LOWEST;
        (self.due_at, self.is_flush_due) = (None, false);
        true
    }

    /// Adds the sets of batches that have a change to be sent.
    fn collect_unsent(&mut self) {
        for position in std::mem::take(&mut self.unsent) {
            if let Some(partial) = self.partials.find(position).filter(|partial| partial.unsent) {
                partial.unsent = false;
                let id = position.ack_id(partial.set.to_words().into());
                self.push(id);
            }
        }
    }

    /// One frame for damaged entries that follow each other and have the same reason.
    fn transmit_damaged(&mut self, consumer_id: u64, out: &mut Outbox<'_>) {
        for run in self.damaged.chunk_by(|a, b| a.1 == b.1) {
            let ids: Vec<_> = run.iter().map(|(position, _)| position.ack_id(AckWords::NONE)).collect();
            put(out, consumer_id, false, &ids, Some(run[0].1));
        }
        self.damaged.clear();
    }
}

fn put(out: &mut Outbox<'_>, consumer_id: u64, cumulative: bool, ids: &[AckId], validation_error: Option<i32>) {
    put_ack(out.tx.flat(), &AckFrame { consumer_id, cumulative, ids, validation_error, request_id: None });
}

/// How many ids one frame takes: at least one.
fn ids_of_a_frame(ids: &[AckId]) -> usize {
    // A tag, a length and two numbers; a tag and a number for each word.
    let bytes = |id: &AckId| 26 + 11 * id.ack_set.len();
    let mut sum = 0;
    let within = |id: &&AckId| {
        sum += bytes(id);
        sum <= ACK_FRAME_BYTES_MAX
    };
    ids.iter().take_while(within).count().max(1)
}
