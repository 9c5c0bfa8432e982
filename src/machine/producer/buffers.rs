//! Buffers that are used again, and payloads whose drop has to wait until no lock is held.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::message::Message;
use super::results::SendResults;
use crate::machine::memory::POOL_BYTES_MAX;

/// Capacity of the first buffer for the records of a batch, bytes. Later ones are sized by the batches before them.
const BUFFER_BYTES_MIN: usize = 1024;

/// Of what the pool may hold, it keeps this part while nothing is pending.
const IDLE_DIVISOR: usize = 4;

/// Buffers for records and framed groups, used again once their batch is stored: a fresh one of this size costs page
/// faults each time.
#[derive(Debug)]
pub(super) struct BufferPool {
    /// The most that it holds, bytes.
    bytes_max: usize,
    buffers: Vec<BytesMut>,
    /// The capacity of all of them.
    held_bytes: usize,
    /// What a batch is expected to take.
    expected_bytes: usize,
}

impl BufferPool {
    pub(super) fn new() -> Self {
        Self { bytes_max: POOL_BYTES_MAX, buffers: Vec::new(), held_bytes: 0, expected_bytes: 0 }
    }

    /// An empty buffer with capacity for as much as batches take.
    pub(super) fn take(&mut self) -> BytesMut {
        let mut buffer = self.buffers.pop().unwrap_or_default();
        self.held_bytes -= buffer.capacity();
        buffer.reserve(self.expected_bytes.max(BUFFER_BYTES_MIN));
        buffer
    }

    /// Keeps a buffer, if the pool is not full. One much smaller than batches are would be grown each time it is taken.
    pub(super) fn put(&mut self, mut buffer: BytesMut) {
        buffer.clear();
        let held_bytes = self.held_bytes + buffer.capacity();
        if buffer.capacity() > self.expected_bytes / 2 && held_bytes <= self.bytes_max {
            self.held_bytes = held_bytes;
            self.buffers.push(buffer);
        }
    }

    /// Keeps the buffer of a payload that is not needed any more. While something else refers to it, such as bytes not
    /// yet written, it is just dropped; it is never the application's.
    pub(super) fn put_payload(&mut self, payload: Bytes) {
        if let Ok(buffer) = payload.try_into_mut() {
            self.put(buffer);
        }
    }

    /// Sets how much it may hold, and frees what is above that. When it `is_idle`, because nothing is pending, that is
    /// less: it gives back what a burst took.
    pub(super) fn trim(&mut self, bytes_max: usize, is_idle: bool) {
        self.bytes_max = bytes_max;
        let kept_max = if is_idle { bytes_max / IDLE_DIVISOR } else { bytes_max };
        while self.held_bytes > kept_max {
            let Some(buffer) = self.buffers.pop() else { break };
            self.held_bytes -= buffer.capacity();
        }
    }

    /// Learns the size of a batch that was closed. The next one is expected to be a little larger than the large ones
    /// among the last, so that its buffer need not grow at the end.
    pub(super) fn learn(&mut self, records_bytes: usize) {
        let decayed = self.expected_bytes - self.expected_bytes / 8;
        self.expected_bytes = decayed.max(records_bytes + records_bytes / 16);
    }
}

/// Payloads and keys that are not needed any more, and whose drop may run code of the application's
/// (`Bytes::from_owner`), and results with an error of its own: they are dropped once no lock is held.
#[derive(Debug, Default)]
pub(crate) struct DeferredDrops(Vec<DeferredDrop>);

#[derive(Debug)]
#[expect(dead_code, reason = "kept to be dropped later")]
enum DeferredDrop {
    Payload(Bytes),
    Results(Arc<SendResults>),
}

impl DeferredDrops {
    /// Drops `payload` now if that can only free memory, else later.
    pub(super) fn defer_drop(&mut self, payload: Bytes) {
        if !payload.is_empty() && !payload.is_unique() {
            self.0.push(DeferredDrop::Payload(payload));
        }
    }

    /// Drops later what of a message may run code of the application when it is dropped.
    pub(super) fn defer_drop_of_message(&mut self, message: &mut Message) {
        self.defer_drop(std::mem::take(&mut message.payload));
        if let (_, Some(key)) = message.take_keys() {
            self.defer_drop(key);
        }
    }

    /// Drops references to the same results now if that can only free memory, else later.
    pub(super) fn defer_drop_of_results(&mut self, results: Vec<Arc<SendResults>>) {
        if results.first().is_some_and(|results| !results.is_blank()) {
            self.0.extend(results.into_iter().map(DeferredDrop::Results));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Drops them all; no lock is held. What is left is an empty list with its capacity.
    pub(crate) fn drop_all(&mut self) {
        self.0.clear();
    }

    /// Takes back a list from a job, for its capacity.
    pub(super) fn reuse(&mut self, other: Self) {
        if self.0.capacity() == 0 {
            self.0 = other.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_is_bounded_and_a_burst_is_given_back() {
        let mut pool = BufferPool::new();
        for _ in 0..100 {
            pool.put(BytesMut::with_capacity(128 * 1024));
        }
        assert_eq!(pool.held_bytes, POOL_BYTES_MAX);
        pool.trim(POOL_BYTES_MAX, true);
        assert_eq!(pool.held_bytes, POOL_BYTES_MAX / IDLE_DIVISOR);
        pool.trim(256 * 1024, false);
        pool.put(BytesMut::with_capacity(128 * 1024));
        assert_eq!(pool.held_bytes, 256 * 1024);
        let held: usize = pool.buffers.iter().map(BytesMut::capacity).sum();
        assert_eq!(held, pool.held_bytes);
    }

    #[test]
    fn a_buffer_much_smaller_than_batches_is_not_kept() {
        let mut pool = BufferPool::new();
        pool.learn(100_000);
        pool.put(BytesMut::with_capacity(1000));
        assert!(pool.buffers.is_empty());
        pool.put(BytesMut::with_capacity(100_000));
        assert_eq!(pool.buffers.len(), 1);
    }
}
