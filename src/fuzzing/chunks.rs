//! Chunked messages.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::id::MessagePosition;
use crate::machine::consumer::{Assembly, Chunk, ChunkLimits, Step};

/// Chunks of several messages in any order, each record of six bytes one chunk. What is assembled is made of the chunks that
/// were taken, in their order, and nothing beyond the limits waits.
pub fn assembly(data: &[u8]) {
    const LIMITS: ChunkLimits = ChunkLimits {
        message_bytes_max: 64,
        pending_max: 3,
        pending_bytes_max: 100,
        expire_after: Duration::from_secs(10),
    };
    let (mut assembly, mut now) = (Assembly::new(LIMITS), Instant::now());
    // The payload of each entry that was taken.
    let mut taken: BTreeMap<MessagePosition, Vec<u8>> = BTreeMap::new();
    for record in data.chunks_exact(6) {
        let &[message, chunk_id, num_chunks, total_bytes, entry, len] = record else { continue };
        let payload = vec![entry; usize::from(len % 32)];
        // An entry is one chunk of one message, however often it comes.
        let position = MessagePosition::new((message % 8).into(), u64::from(chunk_id) << 8 | u64::from(entry));
        let chunk = Chunk {
            uuid: ["a", "b", "c", "d"][usize::from(message % 4)],
            publish_time_ms: u64::from(message >> 2 & 1),
            chunk_id: (chunk_id as i8).into(),
            num_chunks: (num_chunks as i8).into(),
            total_bytes: (total_bytes as i8).into(),
            position,
            redelivery_count: (message >> 4).into(),
            payload: &payload,
        };
        now += Duration::from_millis(u64::from(message >> 3 & 1) * 1500);
        assembly.expire(now);
        let step = assembly.add(&chunk, now);
        let is_too_large = usize::try_from(chunk.total_bytes).is_ok_and(|bytes| bytes > LIMITS.message_bytes_max);
        assert!(!is_too_large || matches!(step, Step::TooLarge | Step::Invalid), "nothing above the limit is kept");
        if matches!(step, Step::Stored | Step::Copies(_) | Step::Complete(_)) {
            taken.insert(position, payload.clone());
        }
        match step {
            Step::Complete(assembled) => {
                let entries = assembled.inner.iter().chain([&position]);
                assert!(entries.clone().map(|entry| entry.entry_id >> 8).eq(0..u64::from(num_chunks)), "all, in order");
                let joined: Vec<u8> = entries.flat_map(|entry| taken[entry].iter().copied()).collect();
                assert_eq!(assembled.payload, joined, "the chunks that were taken, in order");
                assert_eq!(usize::try_from(chunk.total_bytes), Ok(joined.len()));
                assert_eq!(i32::try_from(assembled.inner.len()), Ok(chunk.num_chunks - 1));
                assert!(assembled.payload.capacity() <= LIMITS.message_bytes_max);
            }
            Step::Copies(copies) => assert!(copies.iter().all(|copy| taken.contains_key(copy))),
            Step::TooLarge => assert!(usize::try_from(chunk.total_bytes).is_ok_and(|bytes| bytes > 64)),
            Step::Stored | Step::Known | Step::Stray | Step::Invalid => {}
        }
        for dropped in assembly.take_dropped() {
            assert!(!dropped.positions.is_empty() && dropped.positions.iter().all(|entry| taken.contains_key(entry)));
        }
        assert!(assembly.len() <= LIMITS.pending_max);
        assert!(assembly.expires_at().is_none_or(|at| at > now));
    }
}
