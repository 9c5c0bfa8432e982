//! Readers: consumers whose subscription is not durable, so that SUBSCRIBE says each time where it begins.
//!
//! A broker forgets such a subscription with its consumer. The position after the last message that the application was
//! given is kept here, and named by the next SUBSCRIBE. What is delivered again all the same is dropped as the queue is
//! taken: the receiving side hands messages out without the consumer's lock, so that only then is it known how far it is.
//!
//! | position | `start_message_id` | what is dropped |
//! | --- | --- | --- |
//! | `Earliest` | -1:-1 | nothing |
//! | `Message` | its entry, or that of the first chunk: a broker begins *at* an entry | what lies before it; it too unless it is inclusive |
//! | `PublishTime`, not resolved | none; `start_message_rollback_duration_sec` | what was published before, up to the first that was not |
//! | `Latest`, not resolved | 2^63-1 | nothing |
//!
//! The last two depend on when the broker is asked. They become a `Message`, the one before the first to be delivered, with
//! the first message that is given or the first answer to GET_LAST_MESSAGE_ID, whose `consumer_mark_delete_position` is that.

use super::Consumer;
use super::entry::ReceivedEntry;
use super::operations::LastMessageId;
use super::position::EntryPosition;
use super::seek::{SeekStart, SeekTo};
use crate::id::{MessageId, MessagePosition};
use crate::machine::{Dirty, Now};
use crate::pb;
use crate::wall_time::to_ms;
use crate::wire::entry::BrokerEntryMetadata;
use crate::wire::metadata::Metadata;

/// How much earlier than a publish time a subscription begins, seconds: a broker counts back from its own clock, which may
/// be behind.
const CLOCK_DIFFERENCE_MAX_SECS: u64 = 60;

/// How far the application has read a topic or partition.
#[derive(Debug, Clone)]
pub struct ReadTo {
    /// Everything up to here was given to it, or gives no message. A first chunk is that of the oldest message that is not
    /// complete: what comes of that begins there.
    pub id: MessageId,
    /// The [`Taken::seek_number`](super::Taken::seek_number) of what it was given.
    pub seek_number: u32,
    /// The [`Taken::attach_number`](super::Taken::attach_number) of the last of it.
    pub attach_number: u64,
}

/// The position of a reader.
#[derive(Debug)]
pub(super) struct Reading {
    from: SeekTo,
    /// What was published before, milliseconds since 1970, was not asked for.
    published_from_ms: Option<u64>,
    /// How many seeks have moved it.
    seek_number: u32,
}

impl Reading {
    pub(super) fn new() -> Self {
        Self { from: SeekTo::Earliest, published_from_ms: None, seek_number: 0 }
    }

    fn set(&mut self, from: SeekTo) {
        self.from = from.normal();
        self.published_from_ms = None;
    }

    /// Moves it to where the application asked for.
    pub(super) fn seek(&mut self, to: SeekTo) {
        self.set(to);
        self.seek_number = self.seek_number.wrapping_add(1);
    }

    /// Says in a SUBSCRIBE where it begins.
    pub(super) fn fill(&mut self, subscribe: &mut pb::CommandSubscribe, now: Now) {
        let start = match &self.from {
            SeekTo::Earliest => MessagePosition::EARLIEST,
            SeekTo::Latest => MessagePosition::LATEST,
            SeekTo::Message { id, .. } => id.first_chunk().as_ref().unwrap_or(id).position(),
            SeekTo::PublishTime(time) => {
                let from_ms = to_ms(*time).max(0).unsigned_abs();
                // A time in the future is the end. Of this very millisecond there may be messages already.
                if let Some(back_ms) = now.wall_ms.checked_sub(from_ms) {
                    let back_secs = back_ms.div_ceil(1000).saturating_add(CLOCK_DIFFERENCE_MAX_SECS);
                    subscribe.start_message_rollback_duration_sec = Some(back_secs);
                    self.published_from_ms = Some(from_ms);
                }
                MessagePosition::LATEST
            }
        };
        subscribe.start_message_id =
            Some(pb::MessageIdData { ledger_id: start.ledger_id, entry_id: start.entry_id, ..Default::default() });
        // Of a position beyond the last message of the topic, the end: brokers take it from here.
        subscribe.initial_position = Some(pb::command_subscribe::InitialPosition::Latest.into());
    }

    /// Makes a position that depends on the time of asking one that does not.
    fn resolve(&mut self, last: &LastMessageId, seek_number: u32) {
        let is_open = matches!(self.from, SeekTo::Latest | SeekTo::PublishTime(_)) && self.seek_number == seek_number;
        // An older broker says only where the topic ends, and that is the end which was asked for.
        let end = (self.from == SeekTo::Latest).then_some(last.id);
        if let Some(before) = last.mark_delete.or(end).filter(|_| is_open) {
            self.set(SeekTo::Message { id: before.into(), inclusive: false });
        }
    }

    /// Whether a message that ends in this entry lies before the position.
    fn is_behind(&self, position: EntryPosition) -> bool {
        let SeekTo::Message { id, inclusive } = &self.from else { return false };
        let here = EntryPosition::of(&id.position());
        position < here || (position == here && !inclusive && id.batch_index().is_none())
    }

    /// Whether anything of an entry is for the application, whose [`ReceivedEntry::ack_set`] then names it. `None`: all of
    /// it, and of what follows. Chunks stay: a message lies where its last one does.
    fn admits(&mut self, entry: &mut ReceivedEntry) -> Option<bool> {
        if let Some(from_ms) = self.published_from_ms {
            if published_ms(entry).is_some_and(|at| at < from_ms) {
                return Some(false);
            }
            self.published_from_ms = None;
        }
        let SeekTo::Message { id, .. } = &self.from else { return None };
        let (here, position) = (EntryPosition::of(&id.position()), entry.position());
        if position > here {
            return None;
        }
        if entry.body.as_ref().is_ok_and(|body| body.is_chunk) {
            return Some(true);
        }
        let start = SeekStart::of(&self.from).filter(|_| position == here);
        Some(match start {
            Some(start) => start.exclude_earlier(entry.batch_size(), &mut entry.ack_set),
            None => position == here,
        })
    }
}

/// When an entry was published: by the broker's clock, where it says so. `None` if it cannot be read.
fn published_ms(entry: &ReceivedEntry) -> Option<u64> {
    let body = entry.body.as_ref().ok()?;
    let by_broker = body.broker_metadata().and_then(|range| BrokerEntryMetadata::decode(entry.raw.get(range)?).ok());
    let by_broker = by_broker.and_then(|broker| broker.broker_timestamp);
    by_broker
        .or_else(|| Metadata::decode(entry.raw.get(body.metadata())?).ok().map(|metadata| metadata.publish_time_ms))
}

/// A reader. All of it does nothing on a durable subscription.
impl Consumer {
    /// Where it begins. To be called before it is attached.
    pub fn read_from(&mut self, from: SeekTo) {
        if let Some(reading) = &mut self.reading {
            reading.set(from);
        }
    }

    /// One that has ended begins there if its topic joins again: [`reading`](Self::reading) says it. The end of a topic that
    /// cannot be asked for it is the time of the seek.
    pub fn seek_ended(&mut self, to: SeekTo, now: Now) {
        if let Some(reading) = &mut self.reading {
            reading.seek(to.of_ended(now));
            self.clear_queue();
        }
    }

    /// The position after the last message that [`on_read`](Self::on_read) has named, and the number of seeks that have
    /// moved it.
    pub fn reading(&self) -> Option<(SeekTo, u32)> {
        self.reading.as_ref().map(|reading| (reading.from.clone(), reading.seek_number))
    }

    /// The application was given the messages up to there; all of them are acknowledged, but for those of a batch or of
    /// chunks that is not complete. Does nothing after a seek that it was not given them by.
    pub fn on_read(&mut self, read: ReadTo, now: impl FnOnce() -> Now) {
        let Some(reading) = self.reading.as_mut().filter(|reading| reading.seek_number == read.seek_number) else {
            return;
        };
        let ReadTo { id, attach_number, .. } = read;
        let (last, first_chunk) = (id.position(), id.first_chunk().map(|first| first.position()));
        // The first chunk of the message that it begins behind, or at, may be delivered alone.
        if !mutation!(ReaderStartsAnew) && !reading.from.is_beyond(&last) {
            reading.set(SeekTo::Message { id, inclusive: false });
        }
        if attach_number != self.queue.attach_number() {
            // The subscription that delivered them is gone; what the present one delivers again is acknowledged then.
            return;
        }
        let whole = match (first_chunk, last.batch_index) {
            (Some(first), _) => EntryPosition::of(&first).min(EntryPosition::of(&last)).previous(),
            (None, -1) => EntryPosition::of(&last),
            (None, _) => EntryPosition::of(&last).previous(),
        };
        if whole.entry_id != u64::MAX {
            let whole = MessagePosition { cluster_number: last.cluster_number, ..whole.to_id() };
            // Refused only once the consumer has ended.
            let _ = self.ack_cumulative(&whole, now);
        }
    }

    /// How many seeks have moved it.
    pub(super) fn seek_number(&self) -> u32 {
        self.reading.as_ref().map_or(0, |reading| reading.seek_number)
    }

    /// Whether the application was given the message that ends in this entry.
    pub(super) fn has_read(&self, position: EntryPosition) -> bool {
        self.reading.as_ref().is_some_and(|reading| reading.is_behind(position))
    }

    /// Drops what is queued and lies before the position: it is acknowledged, and its permits come back.
    pub(super) fn drop_read(&mut self) {
        let Some(reading) = &mut self.reading else { return };
        let (mut dropped, mut has_kept) = (None, false);
        self.queue.filter_front(|entry| {
            let is_admitted = reading.admits(entry)?;
            has_kept |= is_admitted;
            if !has_kept {
                dropped = Some(entry.position());
            }
            Some(is_admitted)
        });
        if let Some(position) = dropped.filter(|_| self.acks.are_needed()) {
            // Of a whole entry it cannot fail.
            let _ = self.acks.ack_cumulative(&position.to_id());
            self.acks.flush();
            self.dirty = Dirty::Now;
        }
    }

    pub(super) fn resolve_position(&mut self, last: &LastMessageId, seek_number: u32) {
        if let Some(reading) = &mut self.reading {
            reading.resolve(last, seek_number);
        }
    }

    /// Positions are those of another cluster now: what was read there is not known here.
    pub(super) fn forget_position(&mut self) {
        if let Some(reading) = &mut self.reading {
            let again = match &reading.from {
                SeekTo::Message { .. } => SeekTo::Earliest,
                other => other.clone(),
            };
            reading.seek(again);
        }
    }
}
