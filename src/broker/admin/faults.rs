//! Faults that a test injects into a broker: at once, or on a scripted event.

use std::collections::BTreeMap;

#[cfg(feature = "tap")]
use crate::broker::connections::ProducerSlot;
use crate::broker::faults::ScriptedFault;
#[cfg(feature = "tap")]
use crate::broker::ids::{ConnId, ConsumerKey, ProducerKey};
use crate::broker::machine::Broker;
use crate::topic::TopicName;
use crate::wire::entry::EntryParts;

/// Faults on the next frames or bytes.
impl Broker {
    /// Arms a fault. At most 1,000 are armed at once; further ones are not.
    pub fn arm_fault(&mut self, fault: ScriptedFault) {
        self.connections.faults.arm(fault);
    }

    /// Disarms all faults, sends the responses that are held back to be reversed, and resumes reads and writes where
    /// they were paused. Delayed responses are still sent at their time.
    pub fn clear_faults(&mut self) {
        for (conn, response) in self.connections.faults.clear() {
            self.connections.send_raw(conn, &response);
        }
        self.connections.resume_all();
    }

    /// Has random faults by this seed, until [`clear_faults`](Self::clear_faults).
    pub fn be_hostile(&mut self, seed: u64) {
        self.connections.faults.be_hostile(seed);
    }

    /// How often each kind of fault of [`be_hostile`](Self::be_hostile) happened.
    pub fn hostile_counts(&self) -> BTreeMap<&'static str, u64> {
        self.connections.faults.hostile_counts()
    }

    /// Events on which a fault took effect so far.
    pub fn faults_injected(&self) -> u64 {
        self.connections.faults.injected()
    }

    /// Ends the connection on which the `bytes`-th byte from now on arrives, which may be in the middle of a frame.
    pub fn disconnect_after_bytes_received(&mut self, bytes: usize) {
        self.connections.faults.limit_received(bytes);
    }

    /// Ends the connection to which the `bytes`-th byte from now on is written, right behind that byte.
    pub fn disconnect_after_bytes_sent(&mut self, bytes: usize) {
        self.connections.faults.limit_sent(bytes);
    }
}

/// Faults at once.
impl Broker {
    /// Sends bytes, which need not be a frame, on every connection, between two frames.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        for conn in self.connections.ids() {
            self.connections.send_raw(conn, bytes);
        }
    }

    /// Stops reading from the current connections.
    pub fn stall_reads(&mut self) {
        self.connections.pause_all(false);
    }

    /// Stops reading from the current connections and writing to them, without closing them.
    pub fn blackhole(&mut self) {
        self.connections.pause_all(true);
    }

    /// Asks every connection for fresh credentials, whether or not they have expired.
    pub fn challenge_all(&mut self) {
        for conn in self.connections.ids() {
            self.challenge(conn);
        }
    }

    /// Closes the producers of a topic as a broker that moves it. They may come back at once.
    pub fn close_producers_of(&mut self, topic: &str, url: Option<&str>) {
        let Ok(name) = TopicName::parse(topic) else { return };
        let Some(topic) = self.topics.key(name.as_str()) else { return };
        let keys = self.topics.get(&topic).map_or_else(Vec::new, |found| found.producers.keys());
        for key in keys {
            self.close_producer(&topic, key, url);
        }
    }

    /// Closes the consumers of a topic as a broker that moves it. They may come back at once.
    pub fn close_consumers_of(&mut self, topic: &str, url: Option<&str>) {
        let Ok(name) = TopicName::parse(topic) else { return };
        let Some(found) = self.topics.get(name.as_str()) else { return };
        let keys: Vec<_> = found.subscriptions.values().flat_map(|sub| sub.consumers.keys()).collect();
        for key in keys {
            self.evict_consumer(key, url);
        }
    }

    /// Closes one producer of a connection as a broker that moves its topic.
    #[cfg(feature = "tap")]
    pub(crate) fn close_producer_of(&mut self, conn: ConnId, id: u64) {
        let key = ProducerKey { conn, id };
        if let Some(topic) = self.connections.producer(key).and_then(ProducerSlot::topic).cloned() {
            self.close_producer(&topic, key, None);
        }
    }

    /// Closes one consumer of a connection as a broker that moves its topic.
    #[cfg(feature = "tap")]
    pub(crate) fn close_consumer_of(&mut self, conn: ConnId, id: u64) {
        self.evict_consumer(ConsumerKey { conn, id }, None);
    }

    /// Forgets every topic list watcher without notice: its client gets no further update. The protocol has no command
    /// by which a broker ends a watcher.
    pub fn drop_topic_list_watchers(&mut self) {
        self.watchers.clear();
    }

    /// Makes this broker the owner of a topic's namespace and counts the topic as looked up: another broker sends its
    /// clients here.
    pub fn acquire_topic(&mut self, topic: &str) {
        if let Ok(name) = TopicName::parse(topic) {
            self.ownership.acquire(&name);
        }
    }

    /// Flips the last bit of a stored entry, so that its checksum no longer matches: every delivery of it is damaged.
    /// `entry` counts from the first entry ever stored. False if there is no such entry.
    pub fn corrupt_stored_entry(&mut self, topic: &str, entry: u64) -> bool {
        self.damage(topic, entry, |bytes| {
            if let Some(last) = bytes.last_mut() {
                *last ^= 1;
            }
        })
    }

    /// Overwrites the payload of a stored entry so that it is no longer a batch or compressed data, and gives it a
    /// checksum that matches. False if there is no such entry.
    pub fn corrupt_stored_payload(&mut self, topic: &str, entry: u64) -> bool {
        self.damage(topic, entry, |bytes| {
            let Ok(parts) = EntryParts::split(bytes) else { return };
            if let Some(payload) = bytes.get_mut(parts.payload) {
                payload.fill(0xff);
            }
            if parts.checksum.is_some() {
                put_checksum(bytes, parts.checksummed_from);
            }
        })
    }

    fn damage(&mut self, topic: &str, entry: u64, change: impl FnOnce(&mut [u8])) -> bool {
        let Ok(name) = TopicName::parse(topic) else { return false };
        self.topics.get_mut(name.as_str()).is_some_and(|found| found.log.damage(entry, change))
    }
}

/// Writes the CRC-32C of all from `summed_from` on into the 4 bytes in front of it.
fn put_checksum(entry: &mut [u8], summed_from: usize) {
    let Some((head, summed)) = entry.split_at_mut_checked(summed_from) else { return };
    if let Some(checksum) = head.last_chunk_mut::<4>() {
        *checksum = crc32c::crc32c(summed).to_be_bytes();
    }
}
