//! From the queues of a consumer's endpoints to the user's hands.
//!
//! Each endpoint fills its own queue under its own lock. The one owner of the consumer swaps a whole queue out, and
//! from then on takes message after message from that private run without a lock. Entries are opened (decompressed,
//! cut into records) here, on the user's task.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;

use super::clock;
use super::message::{Opened, ReceivedMessage};
use crate::error::{Error, ErrorKind, Result};
use crate::id::MessageId;
use crate::machine::consumer::{Consumer, EntryBody, ReceivedEntry, ReturnedPermits};
use crate::machine::{Deferred, Endpoint, EndpointId, ReadyList};
use crate::wire::ack_set::AckSet;
use crate::wire::batch::{BatchCursor, PlainRecord};
use crate::wire::compress::{CompressError, decompress};
use crate::wire::entry::EntryError;

/// What a compressed payload may inflate to: sixteen messages of the largest default size.
const UNCOMPRESSED_BYTES_MAX: usize = 16 * crate::wire::MAX_MESSAGE_SIZE_DEFAULT as usize;

/// The receiving half of a consumer: its endpoints' queues, merged.
pub(super) struct Receiver {
    sources: Vec<Source>,
    by_id: HashMap<EndpointId, usize>,
    inbox: Arc<ReadyList>,
    /// Sources that have, or may have, messages; each gives its run in turn.
    ring: VecDeque<usize>,
    marked: Vec<EndpointId>,
    /// The end was told.
    over: bool,
    /// An error that was found behind messages that were given, for the next call.
    held: Option<Error>,
    /// The way of a message from [`Self::poll_any`] to its caller.
    found: Option<ReceivedMessage>,
}

/// One endpoint, and what was taken from it.
struct Source {
    endpoint: Arc<Endpoint<Consumer>>,
    topic: Arc<str>,
    partition: i32,
    /// Moves when the run taken before is void.
    generation: Arc<AtomicU64>,
    taken: u64,
    run: VecDeque<ReceivedEntry>,
    /// The entry opened last: its messages share it, and when all of them are gone its memory serves the next one.
    opened: Option<Arc<Opened>>,
    /// It is a batch, and being handed out.
    batch: Option<Batch>,
    credits: ReturnedPermits,
    /// Permits come home when this many messages were handed out.
    credits_max: u32,
    zero_queue: bool,
    ended: Option<Error>,
}

/// A batch being handed out.
struct Batch {
    cursor: BatchCursor,
    /// Members still unacknowledged at the broker, where it said so.
    live: Option<AckSet>,
    left: u32,
}

impl Receiver {
    pub(super) fn new(
        endpoints: &[Arc<Endpoint<Consumer>>],
        generations: Vec<Arc<AtomicU64>>,
        inbox: Arc<ReadyList>,
        receiver_queue_size: u32,
    ) -> Self {
        let sources: Vec<_> = endpoints
            .iter()
            .zip(generations)
            .map(|(endpoint, generation)| Source::new(endpoint.clone(), generation, receiver_queue_size))
            .collect();
        let by_id = endpoints.iter().enumerate().map(|(index, endpoint)| (endpoint.id(), index)).collect();
        Self { sources, by_id, inbox, ring: VecDeque::new(), marked: Vec::new(), over: false, held: None, found: None }
    }

    /// The next message, an error that concerns one entry or the whole consumer, or `Pending`.
    #[inline(always)]
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<ReceivedMessage>> {
        loop {
            if let Some(message) = self.next_plain() {
                return Poll::Ready(Ok(message));
            }
            match self.poll_any(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            if let Some(message) = self.found.take() {
                return Poll::Ready(Ok(message));
            }
        }
    }

    /// The next message, where it takes next to nothing to get it: most members of most batches. It is looked for
    /// before all else, and inlined up to the user's task, so that a message is made where it is wanted.
    #[inline(always)]
    fn next_plain(&mut self) -> Option<ReceivedMessage> {
        if self.held.is_some() {
            return None;
        }
        let index = *self.ring.front()?;
        self.sources.get_mut(index)?.next_plain(index as u32)
    }

    /// The same for any message, which it leaves in `found`: what it returns fits registers, and so do the parts of a
    /// message that the caller makes, as long as no call writes one into its memory.
    #[inline(never)]
    fn poll_any(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(error) = self.held.take() {
            return Poll::Ready(Err(error));
        }
        loop {
            if let Some(result) = self.next_at_hand() {
                return Poll::Ready(result.map(|message| self.found = Some(message)));
            }
            self.inbox.take(&mut self.marked, Some(cx.waker()));
            if self.marked.is_empty() {
                self.ask_one();
                // Nothing is at hand and nothing is marked: an end, if any, is all that is left to say.
                return match self.ended() {
                    Some(error) => {
                        self.over = true;
                        Poll::Ready(Err(error))
                    }
                    None => Poll::Pending,
                };
            }
            self.collect();
        }
    }

    /// Keeps an error for the next call.
    pub(super) fn hold(&mut self, error: Error) {
        self.held = Some(error);
    }

    /// The next message that is here already.
    #[inline]
    pub(super) fn try_next(&mut self) -> Option<Result<ReceivedMessage>> {
        match self.next_plain() {
            Some(message) => Some(Ok(message)),
            None => self.try_any(),
        }
    }

    #[inline(never)]
    fn try_any(&mut self) -> Option<Result<ReceivedMessage>> {
        if let Some(error) = self.held.take() {
            return Some(Err(error));
        }
        self.inbox.take(&mut self.marked, None);
        self.collect();
        let next = self.next_at_hand();
        if next.is_none() {
            self.ask_one();
            return self.ended().map(Err);
        }
        next
    }

    /// Whether [`Self::poll`] has told the end already.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    fn collect(&mut self) {
        for id in self.marked.drain(..) {
            if let Some(&index) = self.by_id.get(&id) {
                self.sources[index].refill();
                if !self.ring.contains(&index) {
                    self.ring.push_back(index);
                }
            }
        }
    }

    fn next_at_hand(&mut self) -> Option<Result<ReceivedMessage>> {
        while let Some(&index) = self.ring.front() {
            let next = self.sources[index].next(index as u32);
            if next.is_some() {
                return next;
            }
            self.ring.pop_front();
        }
        None
    }

    /// With a queue of size 0, a receive that waits is what grants a permit.
    fn ask_one(&mut self) {
        for source in self.sources.iter().filter(|source| source.zero_queue) {
            source.endpoint.with(&mut Deferred::new(), |consumer, _| consumer.request_one());
        }
    }

    fn ended(&self) -> Option<Error> {
        self.sources.iter().find_map(|source| source.ended.clone())
    }
}

impl Source {
    fn new(endpoint: Arc<Endpoint<Consumer>>, generation: Arc<AtomicU64>, receiver_queue_size: u32) -> Self {
        let (topic, partition) =
            endpoint.with(&mut Deferred::new(), |consumer, _| (consumer.topic().clone(), consumer.partition()));
        Self {
            endpoint,
            topic,
            partition,
            taken: generation.load(Ordering::Relaxed),
            generation,
            run: VecDeque::new(),
            opened: None,
            batch: None,
            credits: ReturnedPermits::default(),
            credits_max: (receiver_queue_size / 2).max(1),
            zero_queue: receiver_queue_size == 0,
            ended: None,
        }
    }

    /// Swaps the endpoint's queue in; permits come home on the way.
    fn refill(&mut self) {
        self.drop_outdated();
        let credits = std::mem::take(&mut self.credits);
        let (attempt, before) = (credits.attempt, self.run.len());
        let run = &mut self.run;
        let mut deferred = Deferred::new();
        let taken = self.endpoint.with(&mut deferred, |consumer, _| consumer.take(credits, run));
        if taken.queue_epoch != self.taken {
            // It moved between the look above and the lock: what was here before is void all the same, and so are its
            // permits if they have restarted.
            let thrown = self.throw_away(before);
            self.credits.count = if taken.attempt == attempt { thrown } else { 0 };
        }
        self.taken = taken.queue_epoch;
        self.credits.attempt = taken.attempt;
        self.ended = taken.ended;
    }

    /// Throws the private run away once it is void: the broker delivers its messages again.
    fn drop_outdated(&mut self) {
        if self.generation.load(Ordering::Relaxed) == self.taken {
            return;
        }
        let thrown = self.throw_away(self.run.len());
        self.credits.count = self.credits.count.saturating_add(thrown);
        self.taken = self.generation.load(Ordering::Relaxed);
    }

    /// Drops the batch at hand and the first `entries` of the run; how many messages that were.
    fn throw_away(&mut self, entries: usize) -> u32 {
        let members = self.batch.take().map_or(0, |batch| batch.left);
        // The broker names the sizes of its batches: their sum may be beyond what a count holds.
        self.run.drain(..entries).fold(members, |sum, entry| sum.saturating_add(entry.members))
    }

    /// The next member of the batch at hand, or the next entry, if it is an ordinary one; else [`Self::next`] is to
    /// look.
    #[inline(always)]
    fn next_plain(&mut self, index: u32) -> Option<ReceivedMessage> {
        if self.generation.load(Ordering::Relaxed) != self.taken {
            return None;
        }
        if self.batch.is_none() {
            let is_open = self.open_single(index);
            return self.opened.as_ref().filter(|_| is_open).map(|opened| ReceivedMessage::single(opened.clone()));
        }
        let (batch, opened) = (self.batch.as_mut()?, self.opened.as_ref()?);
        if batch.live.is_some() {
            return None;
        }
        let index = batch.cursor.index();
        let record = batch.cursor.next_plain(opened.payload())?;
        batch.left = batch.left.saturating_sub(1);
        self.credit(1);
        // No call comes behind this, so that its parts need not go through memory.
        let opened = self.opened.as_ref()?;
        Some(ReceivedMessage::member(opened.clone(), record, index))
    }

    /// Opens the next entry if it is one message that lies there as it is. `false`: nothing was done.
    #[inline(never)]
    fn open_single(&mut self, index: u32) -> bool {
        let Some(entry) = self.run.front_mut() else { return false };
        let body = match &entry.body {
            Ok(body) if body.is_plain() => body,
            _ => return false,
        };
        let (ledger_id, entry_id, members, again) =
            (entry.ledger_id, entry.entry_id, entry.members, entry.redelivery_count);
        let id = MessageId { partition: self.partition, ..MessageId::new(ledger_id, entry_id) };
        let raw = std::mem::take(&mut entry.raw);
        place(&mut self.opened, &self.topic, index, |opened| opened.fill(id, raw, body, None, again));
        self.run.pop_front();
        self.credit(members);
        true
    }

    /// The next message, or an error that concerns one entry; `None` when nothing is at hand.
    fn next(&mut self, index: u32) -> Option<Result<ReceivedMessage>> {
        self.drop_outdated();
        loop {
            if self.batch.is_some() {
                let next = self.next_member();
                if next.is_some() {
                    return next;
                }
            }
            let Some(entry) = self.run.pop_front() else {
                self.send_credits_home();
                self.let_go();
                return None;
            };
            let next = self.open(entry, index);
            if next.is_some() {
                return next;
            }
        }
    }

    /// What waits for messages does not hold on to the read buffer of those it gave.
    fn let_go(&mut self) {
        let Some(opened) = &mut self.opened else { return };
        match Arc::get_mut(opened) {
            Some(opened) => opened.clear(),
            None => self.opened = None,
        }
    }

    #[inline]
    fn credit(&mut self, count: u32) {
        self.credits.count = self.credits.count.saturating_add(count);
        if self.credits.count >= self.credits_max {
            self.send_credits_home();
        }
    }

    #[inline(never)]
    fn send_credits_home(&mut self) {
        if self.credits.count == 0 {
            return;
        }
        let credits = ReturnedPermits { attempt: self.credits.attempt, count: std::mem::take(&mut self.credits.count) };
        self.endpoint.with(&mut Deferred::new(), |consumer, _| consumer.return_permits(credits));
    }

    fn next_member(&mut self) -> Option<Result<ReceivedMessage>> {
        loop {
            let (batch, opened) = (self.batch.as_mut()?, self.opened.as_ref()?);
            let member = batch.cursor.index();
            let Some(record) = batch.cursor.next(opened.payload()) else {
                // Members that the broker charged and the batch did not hold (compacted out) go back.
                let left = batch.left;
                self.batch = None;
                self.credit(left);
                return None;
            };
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    let (id, left) = (*opened.id(), batch.left);
                    self.batch = None;
                    self.reject(id.ledger_id, id.entry_id, left, &EntryError::Batch(error));
                    return None;
                }
            };
            if !batch.live.as_ref().is_none_or(|live| live.is_set(member)) {
                continue;
            }
            let place = PlainRecord {
                metadata_at: record.metadata_range.start,
                payload_at: record.payload.start,
                end: record.payload.end,
            };
            let message = ReceivedMessage::member(opened.clone(), place, member);
            if record.metadata.compacted_out {
                // Nobody will see it, so nobody else acknowledges it, and the entry is done only with all members.
                let id = message.id();
                let _ = self.endpoint.with(&mut Deferred::new(), |consumer, _| consumer.ack(&id, clock::now));
                continue;
            }
            batch.left = batch.left.saturating_sub(1);
            self.credit(1);
            return Some(Ok(message));
        }
    }

    /// Opens an entry: gives its message, or makes it the batch at hand, or refuses it.
    fn open(&mut self, entry: ReceivedEntry, index: u32) -> Option<Result<ReceivedMessage>> {
        let ReceivedEntry { raw, ledger_id, entry_id, redelivery_count, ack_set, body, members, .. } = entry;
        let body = match body {
            Ok(body) => body,
            Err(error) => {
                self.reject(ledger_id, entry_id, members, &error);
                return None;
            }
        };
        if let Some(what) = cannot_open(&body) {
            return Some(Err(self.leave_unread(ledger_id, entry_id, members, what)));
        }
        let inflated = match inflate(&raw, &body) {
            Ok(payload) => payload,
            Err(error @ (CompressError::UnknownCodec(_) | CompressError::NotBuilt { .. })) => {
                return Some(Err(self.leave_unread(ledger_id, entry_id, members, error.to_string())));
            }
            Err(error) => {
                self.reject(ledger_id, entry_id, members, &EntryError::Decompress(error));
                return None;
            }
        };
        let batch_size = body.num_messages_in_batch.unwrap_or(0);
        let id = MessageId { ledger_id, entry_id, partition: self.partition, batch_index: -1, batch_size };
        let fill = |opened: &mut Opened| opened.fill(id, raw, &body, inflated, redelivery_count);
        let opened = place(&mut self.opened, &self.topic, index, fill);
        let Some(size) = body.num_messages_in_batch else {
            let message = ReceivedMessage::single(opened.clone());
            self.credit(members);
            return Some(Ok(message));
        };
        match BatchCursor::new(size, opened.payload().len()) {
            Ok(cursor) => {
                let live =
                    (!ack_set.is_empty()).then(|| AckSet::from_words(&ack_set, u32::try_from(size).unwrap_or(0)));
                self.batch = Some(Batch { cursor, live, left: members });
            }
            Err(error) => self.reject(ledger_id, entry_id, members, &EntryError::Batch(error)),
        }
        None
    }

    /// Damaged: acknowledged with the reason, so that it does not come again.
    fn reject(&mut self, ledger_id: u64, entry_id: u64, permits: u32, error: &EntryError) {
        let permits = ReturnedPermits { attempt: self.credits.attempt, count: permits };
        self.endpoint.with(&mut Deferred::new(), |consumer, _| consumer.reject(ledger_id, entry_id, error, permits));
    }

    /// Sound, but this build cannot read it: not acknowledged, so that a client that can will get it.
    fn leave_unread(&mut self, ledger_id: u64, entry_id: u64, permits: u32, what: String) -> Error {
        self.credit(permits);
        let id = MessageId { partition: self.partition, ..MessageId::new(ledger_id, entry_id) };
        let what = format!("message {id} cannot be read and stays unacknowledged: {what}");
        Error::local(ErrorKind::Unsupported, what).with_topic(&self.topic)
    }
}

/// Puts an entry into the memory of the one before, if nobody holds a message of that any more, else into its own.
#[inline]
fn place<'a>(
    last: &'a mut Option<Arc<Opened>>,
    topic: &Arc<str>,
    index: u32,
    fill: impl FnOnce(&mut Opened),
) -> &'a Arc<Opened> {
    if let Some(mut used) = last.take() {
        if let Some(free) = Arc::get_mut(&mut used) {
            fill(free);
            return last.insert(used);
        }
    }
    let mut fresh = Opened::empty(topic.clone(), index);
    fill(&mut fresh);
    last.insert(Arc::new(fresh))
}

/// The payload, if it is compressed.
fn inflate(raw: &Bytes, body: &EntryBody) -> Result<Option<Bytes>, CompressError> {
    if body.compression == 0 {
        return Ok(None);
    }
    let payload = raw.slice(body.payload.start as usize..body.payload.end as usize);
    decompress(body.compression, &payload, body.uncompressed_size, UNCOMPRESSED_BYTES_MAX).map(Some)
}

fn cannot_open(body: &EntryBody) -> Option<String> {
    if body.encrypted {
        return Some("it is encrypted end to end, which this client does not support".to_owned());
    }
    match body.chunks {
        Some(2..) if body.num_messages_in_batch.is_none() => {
            Some("it is a chunk of a larger message, which this client does not assemble".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ConsumerId;
    use crate::machine::Reply;
    use crate::machine::consumer::QueueSignals;
    use crate::wire::hot::MessageHead;

    #[test]
    fn a_void_run_of_batches_of_absurd_sizes_is_thrown_away() {
        let (id, generation) = (ConsumerId(1), Arc::new(AtomicU64::new(0)));
        let (subscribed, _) = Reply::pair();
        let (topic, inbox) = ("persistent://a/b/t".into(), ReadyList::new());
        let signals = QueueSignals { inbox: inbox.clone(), epoch: generation.clone() };
        let consumer = Consumer::new(id, topic, -1, Arc::default(), signals, subscribed, clock::now());
        let endpoint = Endpoint::new(EndpointId::Consumer(id), consumer, inbox);
        let mut source = Source::new(endpoint, generation.clone(), 1000);
        for entry_id in 0..3 {
            let head = MessageHead {
                consumer_id: 1,
                ledger_id: 1,
                entry_id,
                partition: -1,
                redelivery_count: 0,
                ack_set: Vec::new(),
                consumer_epoch: None,
            };
            source.run.push_back(ReceivedEntry { members: u32::MAX / 2, ..ReceivedEntry::read(head, Bytes::new()) });
        }
        generation.fetch_add(1, Ordering::Relaxed);
        assert!(source.next(0).is_none());
    }
}
