//! MESSAGE: which entries, and which of their members, are for the application.

use super::entry::ReceivedEntry;
use super::{Consumer, Deferred, EndpointId, Now};
use crate::id::MessageId;
use crate::machine::mutation::{self, Mutation};

impl Consumer {
    /// Entries of one read, in order. Leaves `run` empty.
    pub fn on_entries(&mut self, run: &mut Vec<ReceivedEntry>, now: Now, deferred: &mut Deferred) {
        if !self.lifecycle.is_receiving() {
            run.clear();
            return;
        }
        let mut ahead = self.queue.len();
        run.retain_mut(|entry| {
            let is_lost = mutation::is(Mutation::DropEntry) && entry.entry_id % 7 == 3;
            let is_admitted = !is_lost && self.admit(entry, ahead);
            ahead += usize::from(is_admitted);
            is_admitted
        });
        self.queue.append(run);
        if !self.queue.is_empty() {
            self.queue.notify(EndpointId::Consumer(self.id), deferred);
        }
        self.notify_flow();
        // A damaged entry, or the last member of one, left an acknowledgement behind.
        self.is_dirty |= self.acks.noted(|| now) || self.acks.is_due(now);
    }

    /// Whether an entry is queued, behind `ahead` others. Books its permits in either case.
    fn admit(&mut self, entry: &mut ReceivedEntry, ahead: usize) -> bool {
        let charged = entry.members;
        entry.members = self.members_to_deliver(entry, ahead);
        self.queue.book(charged, entry.members);
        entry.members > 0
    }

    /// How many members of an entry are for the application; 0 keeps it out of the queue.
    fn members_to_deliver(&mut self, entry: &mut ReceivedEntry, ahead: usize) -> u32 {
        let position = entry.position();
        let stale = entry.consumer_epoch.is_some_and(|epoch| epoch < self.redelivery.epoch());
        if self.seek.is_running() || (stale && self.config.subscription_type.is_in_order()) {
            return 0;
        }
        if let Err(error) = &entry.body {
            self.acks.reject(position, error.validation_error().into());
            return 0;
        }
        if !self.queue.has_room(ahead) {
            return 0;
        }
        if self.acks.is_waiting(position) {
            return 0;
        }
        let size = entry.batch_size();
        if let Some(start) = self.seek.start_at(position) {
            if !start.exclude_earlier(size, &mut entry.ack_set) {
                // It lies before what was sought, as everything acknowledged does.
                let id = MessageId::new(position.ledger_id, position.entry_id);
                let _full = self.acks.ack(&id);
                return 0;
            }
        }
        match size {
            Some(size) if !entry.ack_set.is_empty() || self.acks.knows_partials() => {
                self.acks.narrow(position, size, &mut entry.ack_set).unwrap_or(entry.members)
            }
            _ => entry.members,
        }
    }
}
