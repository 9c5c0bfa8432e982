//! What a consumer remembers of a million messages that are to come again, or may have to.

use std::sync::Arc;
use std::time::Instant;

use pulsar_native::id::{ConsumerId, MessagePosition};
use pulsar_native::machine::consumer::{Consumer, ConsumerConfig, QueueSignals};
use pulsar_native::machine::{Deferred, Now, ReadyList, Reply};

use super::*;

/// Entries at a distance from each other, and how many bytes each of them may take: the figures in the documentation of
/// `nack` and `ack_timeout`.
struct Row {
    count: u64,
    distance: u64,
    bytes_max: usize,
}

/// In a ledger with its neighbours.
const NEIGHBOURS: Row = Row { count: 1_000_000, distance: 1, bytes_max: 30 };
/// Far from every other one. Fewer, for what each takes does not grow with their number.
const LONELY: Row = Row { count: 200_000, distance: 100, bytes_max: 80 };

/// A consumer that is attached to a broker which says nothing.
fn consumer() -> (Consumer, Now) {
    let mut config = ConsumerConfig::new("s");
    config.subscription_type = SubscriptionType::Shared;
    config.ack_timeout = Some(Duration::from_secs(3600));
    let now = Now { at: Instant::now(), wall_ms: 0 };
    let signals = QueueSignals { inbox: ReadyList::new(), epoch: Arc::default(), observer: None };
    let mut consumer = Consumer::new(ConsumerId(1), TOPIC.into(), -1, Arc::new(config), signals, Reply::pair().0, now);
    consumer.subscribe_request(now);
    consumer.on_attached(&mut Deferred::new());
    (consumer, now)
}

/// Bytes for each of the entries that are `note`d.
fn assert_bytes_each(row: &Row, note: impl Fn(&mut Consumer, u64, Now)) {
    let (mut consumer, now) = consumer();
    let before = held();
    (0..row.count).for_each(|number| note(&mut consumer, number * row.distance, now));
    let each = held().saturating_sub(before) / row.count as usize;
    println!("{each} bytes each, entries {} apart", row.distance);
    assert!((2..=row.bytes_max).contains(&each), "{each} bytes each, entries {} apart", row.distance);
}

fn nack(consumer: &mut Consumer, entry_id: u64, now: Now) {
    consumer.nack(&MessagePosition { ledger_id: 1, entry_id, ..MessagePosition::EARLIEST }, 0, now);
}

fn give(consumer: &mut Consumer, entry_id: u64, now: Now) {
    consumer.on_given(1, entry_id, 0, now);
}

#[test]
fn a_million_negative_acknowledgements_take_tens_of_bytes_each() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    assert_bytes_each(&NEIGHBOURS, nack);
    assert_bytes_each(&LONELY, nack);
}

/// Also where they are negatively acknowledged before the timeout: each is remembered once.
#[test]
fn a_million_acknowledgement_timeouts_take_tens_of_bytes_each() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    assert_bytes_each(&NEIGHBOURS, give);
    assert_bytes_each(&LONELY, |consumer, entry_id, now| {
        give(consumer, entry_id, now);
        nack(consumer, entry_id, now);
    });
}
