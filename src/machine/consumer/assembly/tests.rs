use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn limits() -> ChunkLimits {
    ChunkLimits { message_bytes_max: 100, pending_max: 3, pending_bytes_max: 150, expire_after: 60 * SECOND }
}

struct Harness {
    assembly: Assembly,
    now: Instant,
}

fn at(entry_id: u64) -> MessagePosition {
    MessagePosition::new(1, entry_id)
}

impl Harness {
    fn new() -> Self {
        Self { assembly: Assembly::new(limits()), now: Instant::now() }
    }

    /// Chunk `chunk_id` of the three of `uuid`, each of two bytes, in the entry `entry_id`.
    fn add(&mut self, uuid: &str, chunk_id: i32, entry_id: u64) -> Step {
        let payload = [uuid.as_bytes()[0], b'0' + chunk_id as u8];
        self.add_as(Chunk {
            uuid,
            publish_time_ms: 1,
            chunk_id,
            num_chunks: 3,
            total_bytes: 6,
            position: at(entry_id),
            redelivery_count: 0,
            payload: &payload,
        })
    }

    fn add_as(&mut self, chunk: Chunk<'_>) -> Step {
        let step = self.assembly.add(&chunk, self.now);
        let pending: usize = self.assembly.pending.iter().map(|pending| pending.total_bytes).sum();
        assert_eq!(pending, self.assembly.pending_bytes, "what is reserved is what is there");
        assert!(self.assembly.pending.iter().all(|pending| pending.payload.capacity() <= pending.total_bytes));
        step
    }

    fn dropped(&mut self) -> Vec<(String, IncompleteReason, usize)> {
        let dropped = self.assembly.take_dropped();
        dropped.into_iter().map(|dropped| (dropped.uuid.into(), dropped.reason, dropped.positions.len())).collect()
    }
}

fn complete(payload: &str, inner: [u64; 2]) -> Step {
    Step::Complete(Assembled { payload: payload.into(), inner: inner.map(at).into(), redelivery_count: 0 })
}

#[test]
fn messages_whose_chunks_interleave_are_each_complete_with_their_last() {
    let mut harness = Harness::new();
    for (uuid, id, entry) in [("a", 0, 0), ("b", 0, 1), ("a", 1, 2), ("b", 1, 3)] {
        assert_eq!(harness.add(uuid, id, entry), Step::Stored);
    }
    assert_eq!(harness.add("b", 2, 4), complete("b0b1b2", [1, 3]));
    assert_eq!(harness.add("a", 2, 5), complete("a0a1a2", [0, 2]));
    assert_eq!((harness.assembly.pending.len(), harness.dropped()), (0, vec![]));
}

#[test]
fn what_is_sent_twice_is_a_copy_and_what_is_delivered_twice_is_known() {
    let mut harness = Harness::new();
    assert_eq!((harness.add("a", 0, 0), harness.add("a", 1, 1)), (Step::Stored, Step::Stored));
    assert_eq!(harness.add("a", 1, 1), Step::Known);
    assert_eq!(harness.add("a", 1, 2), Step::Copies(vec![at(2)]));
    // The first one again: the producer had no receipt of any.
    assert_eq!(harness.add("a", 0, 3), Step::Copies(vec![at(0), at(1)]));
    assert_eq!(harness.add("a", 1, 4), Step::Stored);
    assert_eq!(harness.add("a", 2, 5), complete("a0a1a2", [3, 4]));
    // Some of its receipts were lost, also behind a reconnect.
    assert_eq!(harness.add("a", 2, 6), Step::Copies(vec![at(6)]));
    harness.assembly.clear();
    for id in 0..3 {
        assert_eq!(harness.add("a", id, 7 + id as u64), Step::Copies(vec![at(7 + id as u64)]));
    }
    // The whole message, delivered again.
    for id in 0..2 {
        assert_eq!(harness.add("a", id, 3 + id as u64), Step::Stored);
    }
    assert_eq!(harness.add("a", 2, 5), complete("a0a1a2", [3, 4]));
    assert_eq!(harness.dropped(), []);
}

#[test]
fn the_same_first_chunk_again_starts_anew_without_an_acknowledgement() {
    let mut harness = Harness::new();
    assert_eq!((harness.add("a", 0, 0), harness.add("a", 1, 1)), (Step::Stored, Step::Stored));
    assert_eq!((harness.add("a", 0, 0), harness.add("a", 1, 1)), (Step::Stored, Step::Stored));
    assert_eq!(harness.add("a", 2, 2), complete("a0a1a2", [0, 1]));
}

#[test]
fn a_uuid_that_is_used_again_names_another_message() {
    let mut harness = Harness::new();
    let chunk = |publish_time_ms, chunk_id, entry_id| Chunk {
        uuid: "a",
        publish_time_ms,
        chunk_id,
        num_chunks: 2,
        total_bytes: 2,
        position: at(entry_id),
        redelivery_count: 0,
        payload: b"x",
    };
    // The producer died before it sent the others, or behind them.
    for chunk in [chunk(1, 0, 0), chunk(2, 0, 1)] {
        assert_eq!(harness.add_as(chunk), Step::Stored);
    }
    assert!(matches!(harness.add_as(chunk(2, 1, 2)), Step::Complete(_)));
    assert_eq!(harness.add_as(chunk(3, 0, 3)), Step::Stored);
    assert!(matches!(harness.add_as(chunk(3, 1, 4)), Step::Complete(_)));
    assert_eq!((harness.assembly.pending.len(), harness.dropped()), (1, vec![]));
}

#[test]
fn a_gap_drops_what_is_before_it_and_what_has_no_first_chunk_is_a_stray() {
    let mut harness = Harness::new();
    assert_eq!(harness.add("a", 1, 7), Step::Stray);
    assert_eq!((harness.add("b", 0, 8), harness.add("b", 2, 9)), (Step::Stored, Step::Stray));
    assert_eq!(harness.dropped(), [("b".into(), IncompleteReason::Missing, 1)]);
    // Behind its entry in the topic, but of no message that was complete.
    assert_eq!(harness.add("b", 1, 10), Step::Stray);
}

#[test]
fn room_is_made_by_the_oldest_and_time_takes_them_too() {
    let mut harness = Harness::new();
    for (at, uuid) in ["a", "b", "c", "d"].into_iter().enumerate() {
        assert_eq!(harness.add(uuid, 0, at as u64), Step::Stored);
        harness.now += SECOND;
    }
    assert_eq!(harness.dropped(), [("a".into(), IncompleteReason::Evicted, 1)]);
    let large = |total_bytes| Chunk {
        uuid: "large",
        publish_time_ms: 1,
        chunk_id: 0,
        num_chunks: 2,
        total_bytes,
        position: at(9),
        redelivery_count: 0,
        payload: b"x",
    };
    assert_eq!(harness.add_as(large(101)), Step::TooLarge);
    harness.assembly.limits.pending_bytes_max = 17;
    assert_eq!(harness.add_as(large(11)), Step::Stored);
    let evicted = |uuid: &str| (uuid.to_owned(), IncompleteReason::Evicted, 1);
    assert_eq!(harness.dropped(), ["b", "c"].map(evicted));
    // One that is alone has room in any case.
    assert_eq!(harness.add_as(large(100)), Step::Stored);
    assert_eq!(harness.dropped(), ["d"].map(evicted));
    let due = harness.assembly.expires_at().expect("one is pending");
    assert_eq!(due, harness.now + 60 * SECOND);
    harness.assembly.expire(due - SECOND);
    assert_eq!(harness.dropped(), []);
    harness.assembly.expire(due);
    assert_eq!(harness.dropped(), [("large".into(), IncompleteReason::Expired, 1)]);
    assert_eq!(harness.assembly.expires_at(), None);
}

#[test]
fn chunks_that_contradict_themselves_or_each_other_are_invalid() {
    let good = Chunk {
        uuid: "a",
        publish_time_ms: 1,
        chunk_id: 0,
        num_chunks: 3,
        total_bytes: 6,
        position: at(0),
        redelivery_count: 0,
        payload: b"01",
    };
    let bad = [
        Chunk { chunk_id: -1, ..good },
        Chunk { chunk_id: 3, ..good },
        Chunk { num_chunks: 1, ..good },
        Chunk { num_chunks: i32::MIN, ..good },
        Chunk { total_bytes: -1, ..good },
        // Nothing is left for the others.
        Chunk { payload: b"012345", ..good },
    ];
    for chunk in bad {
        assert_eq!(Harness::new().add_as(chunk), Step::Invalid, "{chunk:?}");
    }
    let second = Chunk { chunk_id: 1, position: at(1), ..good };
    let bad =
        [Chunk { num_chunks: 4, ..second }, Chunk { total_bytes: 7, ..second }, Chunk { payload: b"0123", ..second }];
    for chunk in bad {
        let mut harness = Harness::new();
        assert_eq!((harness.add_as(good), harness.add_as(chunk)), (Step::Stored, Step::Invalid), "{chunk:?}");
        assert_eq!(harness.dropped(), [("a".into(), IncompleteReason::Missing, 1)]);
    }
    // The last one has to fill it.
    let mut harness = Harness::new();
    assert_eq!((harness.add_as(good), harness.add_as(second)), (Step::Stored, Step::Stored));
    assert_eq!(harness.add_as(Chunk { chunk_id: 2, payload: b"0", position: at(2), ..good }), Step::Invalid);
}

#[test]
fn a_message_was_delivered_as_often_as_its_least_delivered_chunk() {
    let mut harness = Harness::new();
    for (id, redelivery_count) in [(0, 3), (1, 1), (2, 2)] {
        let chunk = Chunk {
            uuid: "a",
            publish_time_ms: 1,
            chunk_id: id,
            num_chunks: 3,
            total_bytes: 3,
            position: at(id as u64),
            redelivery_count,
            payload: b"x",
        };
        match harness.add_as(chunk) {
            Step::Stored => {}
            Step::Complete(assembled) => assert_eq!(assembled.redelivery_count, 1),
            step => panic!("{step:?}"),
        }
    }
}

#[test]
fn memory_follows_what_comes_and_not_what_is_declared() {
    let mut harness = Harness::new();
    harness.assembly.limits.message_bytes_max = i32::MAX as usize;
    let chunk = Chunk {
        uuid: "bomb",
        publish_time_ms: 1,
        chunk_id: 0,
        num_chunks: 1000,
        total_bytes: i32::MAX,
        position: at(0),
        redelivery_count: 0,
        payload: &[0; 1000],
    };
    assert_eq!(harness.add_as(chunk), Step::Stored);
    assert!(harness.assembly.pending[0].payload.capacity() <= 2000);
}
