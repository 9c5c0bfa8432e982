//! MESSAGE: which entries, and which of their members, are for the application.

use super::entry::ReceivedEntry;
use super::{Consumer, Deferred, EndpointId, Now};
use crate::id::MessagePosition;

impl Consumer {
    /// Entries of one read, in order. Leaves `run` empty.
    ///
    /// A consumer that is not attached, or has ended, drops them: they are of an attach that is over, whose permits do
    /// not exist any more, or not wanted.
    pub fn on_entries(&mut self, run: &mut Vec<ReceivedEntry>, now: Now, deferred: &mut Deferred) {
        if !self.lifecycle.is_receiving() {
            run.clear();
            return;
        }
        self.counters.on_run(run, now);
        self.queue.observe(run, now.at);
        self.dirty.now_if(self.stall.on_arrival(now));
        let mut ahead = self.queue.len();
        run.retain_mut(|entry| {
            let is_admitted = self.admit(entry, ahead);
            ahead += usize::from(is_admitted);
            is_admitted
        });
        self.queue.append(run);
        if !self.queue.is_empty() {
            self.queue.notify(EndpointId::Consumer(self.id), deferred);
        }
        self.notify_flow();
        // A damaged entry, or the last unacknowledged member of a batch, left an acknowledgement behind.
        self.dirty.raise(self.acks.schedule(|| now));
        self.dirty.now_if(self.acks.is_due(now));
    }

    /// Whether an entry is queued, behind `ahead` others.
    ///
    /// In either case the permits that the broker charged for it are booked: those of members to be delivered with the
    /// queue, the others as returned. The entry holds the former from then on.
    fn admit(&mut self, entry: &mut ReceivedEntry, ahead: usize) -> bool {
        let charged = entry.permits;
        entry.permits = self.members_to_deliver(entry, ahead);
        self.queue.book(charged, entry.permits);
        if entry.permits > 0 {
            self.counters.on_entry(entry, entry.permits);
        }
        entry.permits > 0
    }

    /// How many members of an entry are for the application; 0 keeps it out of the queue. [`ReceivedEntry::ack_set`]
    /// then names them. The first case that applies:
    ///
    /// | the entry | delivered | what comes of the rest |
    /// | --- | --- | --- |
    /// | arrives during a seek, or was sent before the last rewind | nothing | delivered again from the new position, if it lies there |
    /// | is damaged | nothing | acknowledged with the reason |
    /// | finds the queue full | nothing | requested again once the queue is taken |
    /// | crossed its acknowledgement, which waits to be sent | nothing | that acknowledgement is sent |
    /// | lies before the message that the last seek went to | nothing | acknowledged, as all that lies before it |
    /// | is the batch that the last seek went into | the members from there on, less those of the next case | the entry is acknowledged with its last unacknowledged member |
    /// | is a batch of which members are acknowledged, here or at the broker | the others | the same; with none left it is acknowledged now |
    /// | is any other | all | |
    fn members_to_deliver(&mut self, entry: &mut ReceivedEntry, ahead: usize) -> u32 {
        let position = entry.position();
        if self.seek.is_running() || self.redelivery.is_outdated(entry.consumer_epoch) {
            return 0;
        }
        // A reader is told of it with its turn: it has been read then.
        if let (Err(error), None) = (&entry.body, &self.reading) {
            self.counters.damaged_entries += 1;
            self.acks.reject(position, error.validation_error().into());
            return 0;
        }
        if !self.queue.has_room(ahead) || self.acks.covers(position) {
            return 0;
        }
        let batch_size = entry.batch_size();
        if let Some(start) = self.seek.start_at(position) {
            if !start.exclude_earlier(batch_size, &mut entry.ack_set) {
                // Refused beyond the bound of what waits to be sent: then it comes again, to the same end.
                let _ = self.acks.ack_slow(&MessagePosition::new(position.ledger_id, position.entry_id));
                return 0;
            }
        }
        match batch_size {
            // A batch that is whole at the broker is only searched for where any batch is not whole here.
            Some(size) if !entry.ack_set.is_empty() || self.acks.has_partials() => {
                self.acks.exclude_acknowledged(position, size, &mut entry.ack_set).unwrap_or(entry.permits)
            }
            _ => entry.permits,
        }
    }
}
