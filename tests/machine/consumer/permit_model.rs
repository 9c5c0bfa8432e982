//! The model of permits under anything that can happen.

use super::*;
use crate::common::random::Random;
use pulsar_native::machine::receive_memory::ReceiveBudget;

const BATCH_MAX: u64 = 7;

/// Up to which the queue may grow, in half of the models.
const SCALED_MAX: u32 = 50;

/// A broker that counts permits as a real one does, and a receiving side that holds what was taken.
struct PermitModel {
    harness: ConsumerHarness,
    random: Random,
    size: i64,
    /// What may be out and here: more than the size after that was lowered, until it is reached.
    window_max: i64,
    /// The largest size in this attach.
    size_max: i64,
    /// What the broker may still send.
    permits: i64,
    next_entry: u64,
    held: Vec<ReceivedEntry>,
    attach_number: u64,
    queue_epoch: u64,
    /// The deadline that its owner has set a timer for.
    timer: Option<Instant>,
    /// Memory may keep back any permits.
    is_limited: bool,
    /// The size follows the application.
    is_scaled: bool,
}

impl PermitModel {
    /// A client whose consumer may use so much memory; 0 is no limit.
    fn limited(seed: u64, limit: usize) -> Self {
        let mut model = Self::new(seed);
        let budget = std::num::NonZeroUsize::new(limit).map(ReceiveBudget::new);
        model.is_limited = budget.is_some();
        model.harness.consumer.set_receive_budget(budget);
        model
    }

    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let kind = if random.below(2) == 0 { SHARED } else { EXCLUSIVE };
        let size = 1 + random.below(20) as u32;
        let is_scaled = random.below(2) == 0;
        let index_acks = random.below(2) == 0;
        let mut harness = ConsumerHarness::new(kind, |config| {
            config.receiver_queue_size = size;
            config.receiver_queue_size_max = if is_scaled { SCALED_MAX } else { 0 };
            config.negative_ack_redelivery_backoff = RedeliveryBackoff::constant(MS(100));
            config.batch_index_acknowledgment = index_acks;
        });
        harness.attach();
        let attach_number = harness.take().1.attach_number;
        let queue_epoch = harness.queue_epoch();
        let size = i64::from(size);
        Self {
            harness,
            random,
            size,
            window_max: size,
            size_max: size,
            permits: 0,
            next_entry: 0,
            held: Vec::new(),
            attach_number,
            queue_epoch,
            timer: None,
            is_limited: false,
            is_scaled,
        }
    }

    fn charged(&self) -> i64 {
        let held: u32 = self.held.iter().map(|entry| entry.permits).sum();
        self.harness.consumer.queued_messages() as i64 + i64::from(held)
    }

    /// The broker reads what was written.
    fn serve(&mut self) {
        let dirty = self.harness.consumer.take_dirty();
        let is_due = self.timer.is_some_and(|at| at <= self.harness.now.at);
        let deadline = self.harness.consumer.poll_deadline().map(|deadline| deadline.at);
        let earlier = deadline.is_some_and(|at| self.timer.is_none_or(|timer| at < timer));
        assert!(dirty != Dirty::Clean || is_due || !earlier, "an earlier deadline without a notification");
        let sent = self.harness.sent();
        assert!(dirty == Dirty::Now || is_due || sent.is_empty(), "written without a notification: {sent:?}");
        self.timer = self.harness.consumer.poll_deadline().map(|deadline| deadline.at);
        for frame in sent {
            if let Some(permits) = frame.strip_prefix("FLOW ") {
                let permits: i64 = permits.parse().expect("a number");
                assert!(permits > 0, "a broker closes the connection for FLOW 0");
                self.permits += permits;
            }
        }
        if self.is_scaled {
            self.size = i64::from(self.harness.consumer.receiver_queue_size());
            self.size_max = self.size_max.max(self.size);
        }
        // granted = queued + taken + outstanding, but for what waits to make half a queue.
        let window = self.permits + self.charged();
        assert!(window <= self.window_max.max(self.size), "{window} messages are out and here");
        self.window_max = window;
        let missing = (self.size - window).max(0);
        let missing_max = if self.is_limited { self.size } else { (self.size / 2).max(1) - 1 };
        assert!(missing <= missing_max, "{missing} permits are missing");
        assert!(self.charged() < self.size_max + BATCH_MAX as i64, "queued and taken: {}", self.charged());
    }

    /// Sends while there are permits, an entry at a time, never part of one.
    fn send(&mut self) {
        let mut run = Vec::new();
        for _ in 0..=self.random.below(6) {
            if self.permits <= 0 {
                break;
            }
            let members = (self.random.below(3) > 0).then(|| 1 + self.random.below(BATCH_MAX) as i32);
            let again = self.next_entry > 0 && self.random.below(5) == 0;
            let entry_id = if again { self.random.below(self.next_entry) } else { self.next_entry };
            self.next_entry += u64::from(!again);
            let (mut head, size) = (head(entry_id), sized(entry_id, members));
            if let (Some(size), 0) = (size, self.random.below(4)) {
                head.ack_set = vec![(self.random.next() & ((1 << size) - 1)) as i64].into();
            }
            let entry = match self.random.below(10) {
                0 => damaged(entry_id, size),
                1 => ReceivedEntry::read(MessageHead { consumer_epoch: Some(0), ..head }, raw(size)),
                _ => ReceivedEntry::read(head, raw(size)),
            };
            self.permits -= i64::from(entry.permits);
            run.push(entry);
        }
        self.harness.deliver(run);
    }

    /// Takes the queue, and drops what is held of an earlier queue epoch.
    fn take(&mut self) {
        let (entries, taken) = self.harness.take();
        let stale = self.queue_epoch != taken.queue_epoch;
        if stale {
            self.return_permits(self.held.len());
        }
        (self.attach_number, self.queue_epoch) = (taken.attach_number, taken.queue_epoch);
        self.held.extend(entries);
    }

    fn return_permits(&mut self, entries: usize) {
        let count = self.held.drain(..entries).map(|entry| entry.permits).sum();
        self.harness.consumer.return_permits(ReturnedPermits { attach_number: self.attach_number, count });
    }

    fn step(&mut self) {
        match self.random.below(13) {
            0..=3 => self.send(),
            4..=5 => self.take(),
            6..=7 => {
                let some = self.random.below(self.held.len() as u64 + 1) as usize;
                let ids: Vec<_> = self.held[..some].iter().flat_map(members).collect();
                for id in ids {
                    match self.random.below(4) {
                        0 => self.harness.consumer.nack(&id, 0, self.harness.now),
                        _ => self.harness.ack(id),
                    }
                }
                self.return_permits(some);
            }
            8 => self.harness.consumer.redeliver_unacknowledged_messages(),
            9 if self.random.below(4) == 0 => {
                self.harness.lose_connection();
                self.harness.attach();
                // A broker knows nothing of permits given on another connection, and neither does the model.
                self.permits = 0;
                self.size = i64::from(self.harness.consumer.receiver_queue_size());
                (self.window_max, self.size_max) = (self.size, self.size);
                self.held.clear();
                let taken = self.harness.take().1;
                (self.attach_number, self.queue_epoch) = (taken.attach_number, taken.queue_epoch);
            }
            10 => {
                // The one of 0 is none.
                let size = self.random.below(21) as u32;
                let size_max = if self.is_scaled { SCALED_MAX } else { size };
                self.harness.consumer.set_receiver_queue_size(size, size_max);
                if size > 0 {
                    self.size = i64::from(self.harness.consumer.receiver_queue_size());
                    self.size_max = self.size_max.max(self.size);
                }
            }
            _ => self.harness.pass(MS(40)),
        }
    }
}

/// The size of a batch belongs to its entry, however often it is delivered.
fn sized(entry_id: u64, members: Option<i32>) -> Option<i32> {
    let fixed = Random::new(entry_id).below(BATCH_MAX + 1) as i32;
    members.and((fixed > 0).then_some(fixed))
}

fn members(entry: &ReceivedEntry) -> Vec<MessagePosition> {
    match entry.batch_size() {
        None => vec![id(entry.entry_id)],
        Some(size) => (0..size as i32).map(|index| member(entry.entry_id, index, size as i32)).collect(),
    }
}

#[test]
fn no_permit_is_lost_or_invented() {
    // Less than an entry, a few of them, all, no limit.
    for (seed, limit) in (0..400).zip([1, 200, 100_000, 0].into_iter().cycle()) {
        let mut world = PermitModel::limited(seed, limit);
        for _ in 0..200 {
            world.step();
            world.serve();
        }
        // Once everything is consumed the broker may send, whatever came before.
        world.take();
        world.return_permits(world.held.len());
        world.serve();
        assert!(world.permits > 0, "seed {seed}: delivery has starved");
    }
}
