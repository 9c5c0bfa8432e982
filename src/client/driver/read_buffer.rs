//! The read buffer of one connection, and full buffers kept for reuse.
//!
//! A message refers to the buffer it was read into, so a full buffer cannot be overwritten before its messages are
//! dropped. Until then it is kept here: reuse saves an allocation, and the memory is likely to be still in the cache.

use std::collections::VecDeque;

use bytes::BytesMut;

/// The size of a new buffer.
const READ_BYTES: usize = 64 * 1024;

/// The least spare capacity before a read. A buffer with more is used up first, so that small reads share one.
const SPARE_BYTES_MIN: usize = 8 * 1024;

/// The most memory of full buffers that is kept for reuse.
const SPENT_BYTES_MAX: usize = 1024 * 1024;

/// The read buffer of one connection; see the module's documentation.
#[derive(Default)]
pub(super) struct ReadBuffer {
    /// Bytes that were read and not consumed by the session.
    pub(super) rx: BytesMut,
    /// The size of the whole buffer; `rx` is its end.
    size: usize,
    /// Full buffers and their sizes, oldest first.
    spent: VecDeque<(BytesMut, usize)>,
    spent_bytes: usize,
}

impl ReadBuffer {
    /// Reserves capacity for a read, and for `missing` bytes.
    #[inline]
    pub(super) fn reserve(&mut self, missing: usize) {
        if self.rx.capacity() - self.rx.len() < missing.max(SPARE_BYTES_MIN) {
            self.renew(missing.max(READ_BYTES));
        }
    }

    /// Frees the full buffers of a connection that has read nothing for a while.
    pub(super) fn free_spent(&mut self) {
        self.spent = VecDeque::new();
        self.spent_bytes = 0;
    }

    fn renew(&mut self, bytes: usize) {
        if self.rx.try_reclaim(bytes) {
            return;
        }
        let wanted = self.rx.len() + bytes;
        let (mut fresh, size) = self.take_reusable(wanted).unwrap_or_else(|| (BytesMut::with_capacity(wanted), wanted));
        fresh.extend_from_slice(&self.rx);
        self.rx.clear();
        let (full, full_size) = (std::mem::replace(&mut self.rx, fresh), std::mem::replace(&mut self.size, size));
        if (1..=SPENT_BYTES_MAX).contains(&full_size) {
            self.spent_bytes += full_size;
            self.spent.push_back((full, full_size));
        }
        while self.spent_bytes > SPENT_BYTES_MAX {
            self.take_oldest();
        }
    }

    /// The oldest full buffer, if its messages are dropped and it is large enough.
    fn take_reusable(&mut self, wanted: usize) -> Option<(BytesMut, usize)> {
        let (oldest, _) = self.spent.front_mut()?;
        oldest.try_reclaim(wanted).then(|| self.take_oldest())?
    }

    fn take_oldest(&mut self) -> Option<(BytesMut, usize)> {
        let oldest = self.spent.pop_front()?;
        self.spent_bytes -= oldest.1;
        Some(oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills the buffer and takes all of it out.
    fn fill(buffer: &mut ReadBuffer) -> bytes::Bytes {
        buffer.reserve(0);
        let room = buffer.rx.capacity();
        buffer.rx.resize(room, 7);
        buffer.rx.split().freeze()
    }

    #[test]
    fn a_buffer_serves_again_once_its_messages_are_gone() {
        let mut buffer = ReadBuffer::default();
        let held = [fill(&mut buffer), fill(&mut buffer)];
        let places = held.each_ref().map(|held| held.as_ptr());
        drop(held);
        let third = fill(&mut buffer);
        assert!(places.contains(&third.as_ptr()));
        assert!(third.iter().all(|&byte| byte == 7));
    }

    #[test]
    fn what_is_held_is_not_written_to_and_what_is_kept_is_bounded() {
        let mut buffer = ReadBuffer::default();
        let held: Vec<_> = (0..100).map(|_| fill(&mut buffer)).collect();
        assert!(held.iter().all(|held| held.iter().all(|&byte| byte == 7)));
        assert!(buffer.spent_bytes <= SPENT_BYTES_MAX && buffer.spent.len() <= SPENT_BYTES_MAX / READ_BYTES);
        assert_eq!(buffer.spent_bytes, buffer.spent.iter().map(|(_, size)| size).sum::<usize>());
        buffer.free_spent();
        assert_eq!((buffer.spent.len(), buffer.spent_bytes), (0, 0));
    }

    #[test]
    fn what_was_read_moves_along() {
        let mut buffer = ReadBuffer::default();
        let _held = fill(&mut buffer);
        buffer.reserve(0);
        buffer.rx.extend_from_slice(b"the start of a frame");
        let filled = buffer.rx.len();
        buffer.reserve(READ_BYTES);
        assert_eq!(&buffer.rx[..], b"the start of a frame");
        assert!(buffer.rx.capacity() - filled >= READ_BYTES);
    }
}
