//! Exclusive and Failover: all entries in order to the active consumer.

use super::{Dispatcher, READ_ENTRIES_MAX};
use crate::broker::ids::ConsumerKey;
use crate::broker::storage::StoredEntry;
use crate::broker::subscription::key_hashing::sticky_slot;

impl Dispatcher<'_> {
    /// Reads again and again, each time as many entries as there were permits when the read began.
    pub(super) fn dispatch_single_active(&mut self) {
        let Some(key) = self.sub.active.active() else { return };
        while let Some(consumer) = self.sub.consumers.get(key).filter(|consumer| consumer.permits > 0) {
            let entries_max = consumer.permits.unsigned_abs().min(READ_ENTRIES_MAX);
            if !self.read_single_active(key, entries_max) {
                return;
            }
        }
    }

    /// One read; false when there is nothing more to read, or no room to send it.
    fn read_single_active(&mut self, key: ConsumerKey, entries_max: u64) -> bool {
        let mut sent = 0;
        while sent < entries_max {
            let Some((offset, entry)) = self.next_unread() else { return false };
            if !self.connections.has_room(key.conn) || !self.is_within_rates() {
                return false;
            }
            self.sub.queue.take_unread();
            if self.drop_if_undeliverable(offset, entry) {
                continue;
            }
            if self.is_filtered_out(key, entry) {
                self.sub.acknowledge(offset);
                continue;
            }
            self.send(offset, entry, key, 0);
            sent += 1;
        }
        true
    }

    /// An Exclusive consumer with key ranges gets the entries of those keys; the others count as acknowledged.
    fn is_filtered_out(&self, key: ConsumerKey, entry: &StoredEntry) -> bool {
        let consumer = self.sub.consumers.get(key);
        consumer.is_some_and(|one| !one.ranges.is_empty() && !one.owns(sticky_slot(entry.info.key_hash)))
    }
}
