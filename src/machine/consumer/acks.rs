//! Acknowledgements on their way to the broker.
//!
//! Which members of a batch are acknowledged is known here alone. An entry goes out as its plain id once all its
//! members are acknowledged, whatever the broker's setting: a broker without batch index acknowledgement ignores an
//! `ack_set`, even an empty one. With index acknowledgement on, the sets of unfinished batches go out as well; with it
//! off they are only held, and a cumulative acknowledgement inside a batch goes out for the entry before.
//!
//! Nothing here is dropped when a connection is lost: what has not been written goes out after the next attach, and
//! unfinished batches stay known, so that their acknowledged members are not handed out again.

use std::time::{Duration, Instant};

use super::entry::BATCH_MEMBERS_MAX;
use super::partials::Partials;
use super::position::Position;
use crate::error::{Error, ErrorKind, Result};
use crate::id::MessagePosition;
use crate::machine::Now;
use crate::machine::endpoint::outbox::Outbox;
use crate::wire::{AckFrame, AckId, put_ack};

/// The most acknowledgements that wait for a connection, in entries. At the bound further ones are refused with
/// [`ErrorKind::QueueFull`]; a refused message stays unacknowledged and can be acknowledged again later.
pub(super) const PENDING_ACKS_MAX: usize = 64 * 1024;

/// The most damaged entries that wait to be reported. At the bound the oldest is not reported, so that the broker
/// delivers it again to a later attach.
const DAMAGED_MAX: usize = 1000;

/// About how large an ACK frame may get, bytes; a single id with a larger set passes.
const ACK_FRAME_BYTES_MAX: usize = 64 * 1024;

/// When acknowledgements leave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grouping {
    pub(super) time: Duration,
    pub(super) count: usize,
}

/// What an id names.
enum Target {
    Entry,
    /// A member of a batch. A size of 0 is unknown.
    Member {
        index: u32,
        size: u32,
    },
}

/// "All up to and including this one", with words if it ends inside a batch.
#[derive(Debug, PartialEq, Eq)]
struct Cumulative {
    position: Position,
    ack_set: Vec<i64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Acks {
    index_acks: bool,
    grouping: Grouping,
    /// Entries to be sent.
    ids: Vec<AckId>,
    /// The highest position in `ids`, so that a new entry is known to be none of them by one comparison.
    highest: Position,
    cumulative: Option<Cumulative>,
    /// The entry that stood before a batch acknowledged cumulatively in part: it is acknowledged once.
    previous: Option<Position>,
    partials: Partials,
    /// Partials with something unsent; may name some that are finished by now.
    unsent: Vec<Position>,
    /// Entries that cannot be read, with their `validation_error`.
    damaged: Vec<(Position, i32)>,
    /// When the oldest of all this has waited long enough.
    due_at: Option<Instant>,
    /// It is to leave now.
    flush: bool,
}

impl Acks {
    pub(super) fn new(index_acks: bool, grouping: Grouping) -> Self {
        Self {
            index_acks,
            grouping,
            ids: Vec::new(),
            highest: LOWEST,
            cumulative: None,
            previous: None,
            partials: Partials::default(),
            unsent: Vec::new(),
            damaged: Vec::new(),
            due_at: None,
            flush: false,
        }
    }

    /// Acknowledges one message, or an entry whole. Says whether that finished an entry.
    pub(super) fn ack(&mut self, id: &MessagePosition) -> Result<bool> {
        if self.pending() >= PENDING_ACKS_MAX {
            return Err(Error::local(ErrorKind::QueueFull, "too many acknowledgements wait for a connection"));
        }
        let position = Position::of(id);
        match target(id)? {
            Target::Entry => {
                if !self.partials.is_empty() {
                    self.partials.remove(position);
                }
                self.push(position.ack_id(Vec::new()));
                Ok(true)
            }
            Target::Member { index, size } => {
                let finished = self.clear_member(position, index, size)?;
                if finished {
                    self.push(position.ack_id(Vec::new()));
                } else if self.index_acks {
                    self.mark_unsent(position);
                }
                Ok(finished)
            }
        }
    }

    /// Acknowledges a member of the batch at hand, where that gives the broker nothing new to hear of: others of the
    /// batch are open, and their set is not sent, or is to be sent already. `false`: nothing was done, and
    /// [`ack`](Self::ack) is to decide.
    #[inline]
    pub(super) fn ack_at_hand(&mut self, id: &MessagePosition) -> bool {
        if self.pending() >= PENDING_ACKS_MAX {
            return false;
        }
        let index_acks = self.index_acks;
        let (Ok(index), Ok(size)) = (u32::try_from(id.batch_index), u32::try_from(id.batch_size)) else { return false };
        match self.partials.at_hand(Position::of(id)) {
            Some(partial) if partial.size == size && index < size && (partial.unsent || !index_acks) => {
                partial.set.clear_unless_last(index)
            }
            _ => false,
        }
    }

    /// Acknowledges everything up to and including `id`. Returns the last entry that is finished by it.
    pub(super) fn ack_cumulative(&mut self, id: &MessagePosition) -> Result<Position> {
        let (cumulative, finished) = self.resolve_cumulative(id)?;
        self.prune(finished);
        let ends_before = cumulative.position != Position::of(id);
        if ends_before && self.previous.replace(finished) == Some(finished) {
            return Ok(finished);
        }
        let newer = self.cumulative.as_ref().is_none_or(|waiting| {
            waiting.position < cumulative.position
                || (waiting.position == cumulative.position && !waiting.ack_set.is_empty())
        });
        if newer {
            self.cumulative = Some(cumulative);
        }
        Ok(finished)
    }

    /// What a cumulative acknowledgement of `id` tells the broker, and the last entry that is finished by it.
    fn resolve_cumulative(&mut self, id: &MessagePosition) -> Result<(Cumulative, Position)> {
        let position = Position::of(id);
        if let Target::Member { index, size } = target(id)? {
            let partial = open(&mut self.partials, position, size, &mut self.ids)?;
            partial.set.clear_up_to(index);
            if !partial.set.is_empty() {
                let previous = position.previous();
                return Ok(match self.index_acks {
                    true => (Cumulative { position, ack_set: partial.set.to_words() }, previous),
                    false => (Cumulative { position: previous, ack_set: Vec::new() }, previous),
                });
            }
        }
        Ok((Cumulative { position, ack_set: Vec::new() }, position))
    }

    /// The ids of an ACK that is sent on its own: those of `ids` that have something to tell the broker.
    pub(super) fn resolve(&mut self, ids: &[MessagePosition], cumulative: bool) -> Result<Vec<AckId>> {
        if cumulative {
            let [id] = ids else { return invalid("a cumulative acknowledgement takes exactly one id") };
            let (ack, _) = self.resolve_cumulative(id)?;
            return Ok(vec![ack.position.ack_id(ack.ack_set)]);
        }
        // All or nothing: an id that cannot be used is found before the first is noted.
        for id in ids {
            if let Target::Member { size: 0, .. } = target(id)? {
                open(&mut self.partials, Position::of(id), 0, &mut self.ids)?;
            }
        }
        let mut out: Vec<AckId> = Vec::new();
        for id in ids {
            let position = Position::of(id);
            let ack_set = match target(id)? {
                Target::Entry => {
                    self.partials.remove(position);
                    Vec::new()
                }
                Target::Member { index, size } => match self.clear_member(position, index, size)? {
                    true => Vec::new(),
                    false if !self.index_acks => continue,
                    false => self.partials.find(position).map_or_else(Vec::new, |partial| partial.set.to_words()),
                },
            };
            let ack = position.ack_id(ack_set);
            match out.last_mut().filter(|last| (last.ledger_id, last.entry_id) == (ack.ledger_id, ack.entry_id)) {
                Some(last) => *last = ack,
                None => out.push(ack),
            }
        }
        Ok(out)
    }

    /// Nobody knows whether these reached the broker: `members` count as unacknowledged again. The other members of
    /// their batches stay acknowledged, so that the batch can still be finished.
    pub(super) fn take_back(&mut self, ids: &[AckId], members: &[MessagePosition]) {
        let whole = |position: Position| {
            let same = |id: &AckId| (id.ledger_id, id.entry_id) == (position.ledger_id, position.entry_id);
            ids.iter().any(|id| id.ack_set.is_empty() && same(id))
        };
        for batch in members.chunk_by(|a, b| Position::of(a) == Position::of(b)) {
            let Ok(Target::Member { size: size @ 1.., .. }) = target(&batch[0]) else { continue };
            let position = Position::of(&batch[0]);
            if whole(position) {
                let mut words = vec![0i64; size.div_ceil(64) as usize];
                for index in batch.iter().filter_map(|id| usize::try_from(id.batch_index).ok()) {
                    if let Some(word) = words.get_mut(index / 64) {
                        *word |= 1 << (index % 64);
                    }
                }
                // Some of them may have been acknowledged again meanwhile.
                self.narrow(position, size, &mut words);
            }
        }
    }

    /// Notes that a member is acknowledged; true if it was the last one, and then the entry is not held any more.
    fn clear_member(&mut self, position: Position, index: u32, size: u32) -> Result<bool> {
        let partial = open(&mut self.partials, position, size, &mut self.ids)?;
        partial.set.clear(index);
        let finished = partial.set.is_empty();
        if finished {
            self.partials.remove(position);
        }
        Ok(finished)
    }

    fn mark_unsent(&mut self, position: Position) {
        if let Some(partial) = self.partials.find(position) {
            if !partial.unsent {
                partial.unsent = true;
                self.unsent.push(position);
            }
        }
    }

    fn push(&mut self, id: AckId) {
        let position = Position { ledger_id: id.ledger_id, entry_id: id.entry_id };
        self.highest = self.highest.max(position);
        self.ids.push(id);
    }

    /// The broker has confirmed a cumulative acknowledgement: what it covers needs none of its own. Not before, or a
    /// refusal would take those along that were made before it.
    pub(super) fn confirmed_up_to(&mut self, id: &AckId) {
        let position = Position { ledger_id: id.ledger_id, entry_id: id.entry_id };
        self.prune(if id.ack_set.is_empty() { position } else { position.previous() });
    }

    /// What lies at or below a cumulative acknowledgement needs none of its own.
    fn prune(&mut self, up_to: Position) {
        let above = |id: &AckId| Position { ledger_id: id.ledger_id, entry_id: id.entry_id } > up_to;
        self.ids.retain(above);
        self.partials.remove_below(up_to);
        self.partials.remove(up_to);
    }

    /// Takes a damaged entry out of the subscription, with the reason.
    pub(super) fn reject(&mut self, position: Position, validation_error: i32) {
        self.partials.remove(position);
        if self.damaged.len() == DAMAGED_MAX {
            self.damaged.remove(0);
        }
        self.damaged.push((position, validation_error));
        self.flush = true;
    }

    /// Whether the acknowledgement of the whole entry waits here, so that this delivery is one too many.
    pub(super) fn is_waiting(&self, position: Position) -> bool {
        let cumulative =
            |ack: &Cumulative| position < ack.position || (position == ack.position && ack.ack_set.is_empty());
        let same = |id: &AckId| {
            id.ack_set.is_empty() && (id.ledger_id, id.entry_id) == (position.ledger_id, position.entry_id)
        };
        self.cumulative.as_ref().is_some_and(cumulative)
            || (position <= self.highest && !self.ids.is_empty() && self.ids.iter().any(same))
    }

    /// A batch was delivered: notes which members are left of it, and takes those out of `ack_set` that are
    /// acknowledged already. Returns how many are left, or `None` if nothing is known that changes it.
    pub(super) fn narrow(&mut self, position: Position, size: u32, ack_set: &mut Vec<i64>) -> Option<u32> {
        if ack_set.is_empty() && self.partials.find(position).is_none() {
            return None;
        }
        let partial = self.partials.find_or_open(position, size, &mut self.ids);
        partial.set.and_with(ack_set);
        let left = partial.set.count();
        *ack_set = partial.set.to_words();
        if left == 0 {
            self.partials.remove(position);
            self.push(position.ack_id(Vec::new()));
        }
        Some(left)
    }

    /// Whether a delivery needs [`narrow`](Self::narrow) although it says nothing of its members.
    pub(super) fn knows_partials(&self) -> bool {
        !self.partials.is_empty()
    }

    /// Something was noted. Says whether whoever sends has to hear of it: a new deadline, or enough to send.
    pub(super) fn noted(&mut self, now: impl FnOnce() -> Now) -> bool {
        if self.flush || !self.has_pending() {
            return false;
        }
        if self.grouping.time.is_zero() || self.pending() >= self.grouping.count {
            self.flush = true;
            return true;
        }
        if self.due_at.is_none() {
            self.due_at = now().at.checked_add(self.grouping.time);
            return true;
        }
        false
    }

    /// Whether anything waits to be sent.
    pub(super) fn has_pending(&self) -> bool {
        self.pending() > 0 || !self.damaged.is_empty()
    }

    #[inline]
    fn pending(&self) -> usize {
        self.ids.len() + self.unsent.len() + usize::from(self.cumulative.is_some())
    }

    /// When the group leaves.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.due_at
    }

    /// What waits leaves now.
    pub(super) fn flush(&mut self) {
        self.flush = self.has_pending();
    }

    pub(super) fn is_due(&self, now: Now) -> bool {
        self.flush || self.due_at.is_some_and(|at| at <= now.at)
    }

    /// A new attach: what the broker was told on the last connection may not have reached it.
    pub(super) fn on_attached(&mut self) {
        self.previous = None;
        if self.index_acks {
            self.unsent = self.partials.all_unsent();
        }
        self.flush();
    }

    /// A seek: nothing that was acknowledged before means anything after it.
    pub(super) fn forget(&mut self) {
        *self = Self::new(self.index_acks, self.grouping);
    }

    /// Writes what waits, about `out.quantum_bytes` of it at most. True if nothing is left.
    pub(super) fn transmit(&mut self, consumer_id: u64, out: &mut Outbox<'_>) -> bool {
        let start = out.tx.len();
        let within = |out: &Outbox<'_>| out.tx.len() - start < out.quantum_bytes;
        self.transmit_damaged(consumer_id, out);
        if let Some(ack) = self.cumulative.take() {
            let ids = [ack.position.ack_id(ack.ack_set)];
            put(out, consumer_id, true, &ids, None);
        }
        for position in std::mem::take(&mut self.unsent) {
            if let Some(partial) = self.partials.find(position).filter(|partial| partial.unsent) {
                partial.unsent = false;
                let id = position.ack_id(partial.set.to_words());
                self.push(id);
            }
        }
        let mut sent = 0;
        while sent < self.ids.len() && within(out) {
            let count = fitting(&self.ids[sent..]);
            put(out, consumer_id, false, &self.ids[sent..sent + count], None);
            sent += count;
        }
        self.ids.drain(..sent);
        if !self.ids.is_empty() {
            return false;
        }
        self.highest = LOWEST;
        (self.due_at, self.flush) = (None, false);
        true
    }

    fn transmit_damaged(&mut self, consumer_id: u64, out: &mut Outbox<'_>) {
        for run in self.damaged.chunk_by(|a, b| a.1 == b.1) {
            let ids: Vec<_> = run.iter().map(|(position, _)| position.ack_id(Vec::new())).collect();
            put(out, consumer_id, false, &ids, Some(run[0].1));
        }
        self.damaged.clear();
    }
}

/// Below every real position.
const LOWEST: Position = Position { ledger_id: i64::MIN as u64, entry_id: i64::MIN as u64 };

fn put(out: &mut Outbox<'_>, consumer_id: u64, cumulative: bool, ids: &[AckId], validation_error: Option<i32>) {
    put_ack(out.tx.flat(), &AckFrame { consumer_id, cumulative, ids, validation_error, request_id: None });
}

/// How many ids one frame takes: at least one.
fn fitting(ids: &[AckId]) -> usize {
    // A tag, a length and two numbers; a tag and a number for each word.
    let bytes = |id: &AckId| 26 + 11 * id.ack_set.len();
    let mut sum = 0;
    let within = |id: &&AckId| {
        sum += bytes(id);
        sum <= ACK_FRAME_BYTES_MAX
    };
    ids.iter().take_while(within).count().max(1)
}

fn open<'a>(
    partials: &'a mut Partials,
    position: Position,
    size: u32,
    forgotten: &mut Vec<AckId>,
) -> Result<&'a mut super::partials::Partial> {
    if size == 0 {
        let unknown = "the id names a member of a batch but not how large the batch is";
        return partials.find(position).ok_or_else(|| Error::local(ErrorKind::InvalidArgument, unknown));
    }
    Ok(partials.find_or_open(position, size, forgotten))
}

fn target(id: &MessagePosition) -> Result<Target> {
    let Ok(index) = u32::try_from(id.batch_index) else { return Ok(Target::Entry) };
    let size = u32::try_from(id.batch_size).unwrap_or(0);
    if (index, size) == (0, 1) {
        return Ok(Target::Entry);
    }
    if size > BATCH_MEMBERS_MAX || (size > 0 && index >= size) {
        return invalid("the id names no member of its batch");
    }
    Ok(Target::Member { index, size })
}

fn invalid<T>(why: &str) -> Result<T> {
    Err(Error::local(ErrorKind::InvalidArgument, why))
}
