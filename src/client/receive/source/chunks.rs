//! Chunks of messages: carries out what [`Assembly`] says of each.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Source, place, time_entry};
use crate::client::clock;
use crate::client::events::{ConsumerEvent, EventQueue};
use crate::client::message::{DecodedEntry, Inflated, ReceivedMessage};
use crate::client::receive::decode::{DecodeFailure, decrypt, inflate, payload_of};
use crate::client::unreadable::UnreadableReason;
use crate::id::MessagePosition;
use crate::machine::Now;
use crate::machine::consumer::{
    Assembled, Assembly, Chunk, ChunkLimits, ConsumerConfig, Dropped, EntryBody, IncompleteReason, ReceivedEntry, Step,
};
use crate::wire::metadata::Metadata;

/// The chunked messages of one part: from its first chunk on.
pub(super) struct Chunks {
    assembly: Assembly,
    limits: ChunkLimits,
    acknowledges_incomplete: bool,
    /// Exclusive and Failover: a chunk that is dropped does not come again before the next attach.
    is_in_order: bool,
    /// Chunks without those before them that are to be acknowledged, once they are old enough; the oldest first.
    young_strays: VecDeque<(Instant, MessagePosition)>,
    /// When the endpoint is to have the receiver look for what has expired.
    expires_at: Option<Instant>,
}

impl Chunks {
    pub(super) fn new(config: &ConsumerConfig) -> Self {
        let acknowledges_incomplete = config.auto_ack_incomplete_chunked_messages;
        let limits = ChunkLimits::of(config);
        Self {
            assembly: Assembly::new(limits),
            limits,
            acknowledges_incomplete,
            is_in_order: config.subscription_type.is_in_order(),
            young_strays: VecDeque::new(),
            expires_at: None,
        }
    }

    /// The first entry of the oldest message that is not complete.
    pub(super) fn first_pending(&self) -> Option<MessagePosition> {
        self.assembly.first_pending()
    }

    /// When something is to be looked for.
    fn due_at(&self) -> Option<Instant> {
        let stray = self.young_strays.front().map(|(due, _)| *due);
        self.assembly.expires_at().into_iter().chain(stray).min()
    }

    /// How long it takes until chunks of this `publish_time` may be acknowledged without the others of their message.
    /// `None`: they never are.
    fn young_for(&self, publish_time_ms: u64, now: Now) -> Option<Duration> {
        let age = Duration::from_millis(now.wall_ms.saturating_sub(publish_time_ms));
        let expire_after = self.limits.expire_after;
        (!expire_after.is_zero()).then(|| expire_after.saturating_sub(age))
    }

    /// Chunks that are not old enough yet are acknowledged later, where they do not come again by then.
    fn keep_strays(&mut self, positions: &[MessagePosition], young_for: Option<Duration>, now: Instant) {
        if !self.acknowledges_incomplete || !self.is_in_order {
            return;
        }
        let Some(due) = young_for.and_then(|time| now.checked_add(time)) else { return };
        self.young_strays.extend(positions.iter().map(|position| (due, *position)));
        let excess = self.young_strays.len().saturating_sub(YOUNG_STRAYS_MAX);
        self.young_strays.drain(..excess);
    }

    fn take_old_strays(&mut self, now: Instant) -> Vec<MessagePosition> {
        let old = self.young_strays.iter().take_while(|(due, _)| *due <= now).count();
        self.young_strays.drain(..old).map(|(_, position)| position).collect()
    }
}

/// The most strays that wait to be old enough. Beyond it the oldest stays unacknowledged.
const YOUNG_STRAYS_MAX: usize = 1000;

/// An entry that is a chunk.
struct ChunkEntry {
    raw: Bytes,
    body: EntryBody,
    position: MessagePosition,
    redelivery_count: u32,
    permits: u32,
}

impl Source {
    /// Takes a chunk: gives the message, if that is complete with it. Its permit is returned in each case.
    pub(super) fn next_of_chunk(
        &mut self,
        entry: ReceivedEntry,
        events: &EventQueue<ConsumerEvent>,
    ) -> Option<ReceivedMessage> {
        let ReceivedEntry { raw, ledger_id, entry_id, redelivery_count, body, permits, .. } = entry;
        let body = body.ok()?;
        let (partition, cluster_number) = (self.part.partition, self.cluster_number);
        let position = MessagePosition { partition, cluster_number, ..MessagePosition::new(ledger_id, entry_id) };
        let entry = ChunkEntry { raw, body, position, redelivery_count, permits };
        let payload = match decrypt(&entry.raw, &entry.body, &self.decryption) {
            Ok(Some(decrypted)) => decrypted,
            Ok(None) => payload_of(&entry.raw, &entry.body),
            Err(failure) if self.gives_encrypted(&failure) => {
                return Some(self.give_encrypted(position, entry.raw, &entry.body, redelivery_count, permits));
            }
            Err(failure) => {
                self.fail_chunk(&entry, failure, events);
                return None;
            }
        };
        let metadata_bytes = &entry.raw[entry.body.metadata()];
        // Cannot fail: it was parsed when the entry arrived.
        let metadata = Metadata::decode(metadata_bytes).unwrap_or_default();
        let chunk = Chunk { redelivery_count, ..Chunk::of(&metadata, metadata_bytes, position, &payload)? };
        let now = clock::now();
        let chunks = self.chunks.get_or_insert_with(|| Box::new(Chunks::new(&self.config)));
        let limits = chunks.limits;
        let step = chunks.assembly.add(&chunk, now.at);
        self.report_dropped(events);
        match step {
            Step::Complete(assembled) => return self.open_assembled(&entry, assembled, events),
            Step::Stored | Step::Known => {}
            Step::Copies(positions) => self.part.endpoint.with(|consumer| consumer.ack_copies(&positions, now)),
            Step::Stray => {
                let stray = Dropped {
                    uuid: chunk.uuid.into(),
                    num_chunks: chunk.num_chunks,
                    publish_time_ms: chunk.publish_time_ms,
                    reason: IncompleteReason::Missing,
                    positions: vec![position],
                };
                self.report_incomplete(stray, now, events);
                self.watch_expiry();
            }
            Step::Invalid => {
                self.fail_chunk(&entry, UnreadableReason::InvalidChunk.into(), events);
                return None;
            }
            Step::TooLarge => {
                let (total_bytes, limit_bytes) =
                    (usize::try_from(chunk.total_bytes).unwrap_or(0), limits.message_bytes_max);
                let reason = UnreadableReason::ChunkedMessageTooLarge { total_bytes, limit_bytes };
                self.fail_chunk(&entry, reason.into(), events);
                return None;
            }
        }
        self.return_permits(permits);
        None
    }

    /// The message of which this was the last chunk.
    fn open_assembled(
        &mut self,
        entry: &ChunkEntry,
        assembled: Assembled,
        events: &EventQueue<ConsumerEvent>,
    ) -> Option<ReceivedMessage> {
        let ChunkEntry { raw, body, position, permits, .. } = entry;
        let Assembled { payload, inner, redelivery_count } = assembled;
        if !self.part.endpoint.with(|consumer| consumer.on_assembled(position, &inner)) {
            self.return_permits(*permits);
            return None;
        }
        let payload = Bytes::from(payload);
        let inflated = match body.compression {
            0 => Ok(payload),
            _ => inflate(&payload, body, self.config.max_uncompressed_size),
        };
        let payload = match inflated {
            Ok(payload) => payload,
            Err(failure) => {
                if matches!(failure, DecodeFailure::Damaged(_)) && !self.takes_unreadable() {
                    // The entry of the last one is rejected, with the reason.
                    self.part.endpoint.with(|consumer| consumer.ack_copies(&inner, clock::now()));
                }
                self.fail_chunk(entry, failure, events);
                return None;
            }
        };
        self.on_given(*position, redelivery_count);
        let opened_at = time_entry(&mut self.untimed_entries);
        let inflated = Inflated { payload, first_chunk: inner.first().copied() };
        // The other metadata is the same in all chunks. A copy, which does not keep the payload of this one.
        let raw = Bytes::copy_from_slice(&raw[..body.metadata().end]);
        let opened = place(&mut self.opened, &self.part, |opened| {
            opened.fill(*position, raw, body, Some(inflated), redelivery_count, opened_at);
        });
        let message = ReceivedMessage::single(opened.clone());
        self.return_permits(*permits);
        Some(message)
    }

    fn takes_unreadable(&self) -> bool {
        self.dead_letters.as_ref().is_some_and(|letters| letters.takes_unreadable())
    }

    /// A chunk, or the message that it completed, gives nothing.
    fn fail_chunk(&mut self, entry: &ChunkEntry, failure: DecodeFailure, events: &EventQueue<ConsumerEvent>) {
        let mut stored = DecodedEntry::empty(self.part.clone());
        let ChunkEntry { raw, body, position, redelivery_count, permits } = entry;
        // A copy, because an event may wait for long and must not keep a whole read buffer.
        stored.fill(*position, Bytes::copy_from_slice(raw), body, None, *redelivery_count, None);
        self.on_failure(stored, *permits, failure, events);
    }

    /// Drops the messages whose chunks did not come in time.
    pub(super) fn expire_chunks(&mut self, events: &EventQueue<ConsumerEvent>) {
        let Some(chunks) = self.chunks.as_mut().filter(|chunks| chunks.due_at().is_some()) else { return };
        let now = clock::now();
        let strays = chunks.take_old_strays(now.at);
        if !strays.is_empty() {
            self.part.endpoint.with(|consumer| consumer.ack_copies(&strays, now));
        }
        chunks.assembly.expire(now.at);
        self.report_dropped(events);
    }

    /// What was delivered is delivered again.
    pub(super) fn clear_chunks(&mut self) {
        if let Some(chunks) = &mut self.chunks {
            chunks.assembly.clear();
            chunks.young_strays.clear();
            self.watch_expiry();
        }
    }

    fn report_dropped(&mut self, events: &EventQueue<ConsumerEvent>) {
        let dropped = self.chunks.as_mut().map(|chunks| chunks.assembly.take_dropped()).unwrap_or_default();
        let now = clock::now();
        for dropped in dropped {
            self.report_incomplete(dropped, now, events);
        }
        self.watch_expiry();
    }

    /// Reports chunks that were dropped, and acknowledges them or has them delivered again. Those that miss others are not
    /// acknowledged while they are young: the others may be on their way to another attach or another consumer, or
    /// negatively acknowledged by themselves.
    fn report_incomplete(&mut self, dropped: Dropped, now: Now, events: &EventQueue<ConsumerEvent>) {
        let Some(chunks) = &mut self.chunks else { return };
        let Dropped { uuid, num_chunks, publish_time_ms, reason, positions } = dropped;
        let young_for = match reason {
            IncompleteReason::Missing => chunks.young_for(publish_time_ms, now),
            IncompleteReason::Expired | IncompleteReason::Evicted => Some(Duration::ZERO),
        };
        let acknowledged = young_for == Some(Duration::ZERO) && chunks.acknowledges_incomplete;
        self.part.endpoint.with(|consumer| consumer.on_chunks_dropped(&positions, acknowledged, now));
        if !acknowledged {
            chunks.keep_strays(&positions, young_for, now.at);
        }
        events.push(ConsumerEvent::IncompleteChunkedMessage {
            topic: self.part.topic.clone(),
            uuid: Arc::from(uuid),
            received_chunks: positions.len(),
            chunks: u32::try_from(num_chunks).unwrap_or(0),
            reason,
            acknowledged,
        });
    }

    /// Has the endpoint say when the next one expires, for the application may receive nothing until then.
    fn watch_expiry(&mut self) {
        let Some(chunks) = &mut self.chunks else { return };
        let expires_at = chunks.due_at();
        if expires_at != chunks.expires_at {
            chunks.expires_at = expires_at;
            self.part.endpoint.with(|consumer| consumer.set_chunks_expire_at(expires_at));
        }
    }
}
