//! Sends entries to the consumers of one subscription, as far as permits, room and rules allow.
//!
//! Permits count messages but gate entries: an entry goes out whole while permits are above zero. How far they are
//! overdrawn differs by type, as on a real broker: Exclusive, Failover and Key_Shared read up to `permits` *entries* in
//! one go and send all of them, Shared counts while it sends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::broker::config::DamagedEntries;
use crate::broker::connections::Connections;
use crate::broker::storage::log::{Entry, EntryFacts, Log, Position};
use crate::broker::subscription::{Consumer, ConsumerKey, Subscription};
use crate::pb::command_subscribe::SubType;
use crate::wire::hot::MessageHead;

/// Entries of one read of a single-active or Key_Shared subscription.
const READ_ENTRIES_MAX: u64 = 100;

/// Entries in a row that a Shared consumer gets before the next one's turn.
const SHARED_RUN_ENTRIES: u32 = 20;

/// Key_Shared: entries that may wait for their key before reading ahead stops.
const WAITING_ENTRIES_MAX: usize = 2_000;

/// Chunked messages of a Shared subscription whose consumer is remembered; beyond it one is forgotten.
const CHUNKED_MAX: usize = 10_000;

/// What delivery needs to know beyond the subscription.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context {
    pub(crate) now_ms: u64,
    /// The topic's partition number, −1 for none.
    pub(crate) partition: i32,
    pub(crate) unacked_messages_max: u64,
    pub(crate) broker_entry_metadata: bool,
    pub(crate) damaged: DamagedEntries,
}

/// Sends what can be sent. `Some(ms)` says when a delayed entry is due, if nobody was told of that time yet.
pub(crate) fn dispatch(sub: &mut Subscription, log: &Log, conns: &mut Connections, context: &Context) -> Option<u64> {
    sub.read = sub.read.max(log.first());
    match sub.sub_type {
        SubType::Exclusive | SubType::Failover => dispatch_single(sub, log, conns, context),
        SubType::Shared => dispatch_shared(sub, log, conns, context),
        SubType::KeyShared => dispatch_key_shared(sub, log, conns, context),
    }
    sub.read_max = sub.read_max.max(sub.read);
    let due_ms = sub.delayed.first().map(|(due_ms, _)| *due_ms)?;
    let earlier = sub.delayed_timer_ms.is_none_or(|known_ms| due_ms < known_ms);
    earlier.then(|| *sub.delayed_timer_ms.insert(due_ms))
}

/// Delivers an entry of a non-persistent topic to whoever can take it now, or to nobody.
pub(crate) fn deliver_transient(
    sub: &mut Subscription,
    bytes: &Bytes,
    facts: &EntryFacts,
    partition: i32,
    now_ms: u64,
    conns: &mut Connections,
) {
    let open = |consumer: &Consumer, conns: &mut Connections| consumer.permits > 0 && conns.has_room(consumer.key.conn);
    let chosen = match sub.sub_type {
        SubType::Exclusive | SubType::Failover => {
            sub.active.filter(|_| sub.active_ready).and_then(|key| sub.consumers.iter().position(|one| one.key == key))
        }
        SubType::KeyShared => {
            let owner = sub.owner_of(facts.hashing_scheme).1;
            owner.and_then(|key| sub.consumers.iter().position(|one| one.key == key))
        }
        SubType::Shared => {
            sub.turn = sub.turn.wrapping_add(1);
            let count = sub.consumers.len().max(1);
            let first = sub.turn % count;
            (first..count).chain(0..first).find(|index| sub.consumers.get(*index).is_some_and(|one| open(one, conns)))
        }
    };
    let Some(consumer) = chosen.and_then(|index| sub.consumers.get_mut(index)) else { return };
    if !open(consumer, conns) {
        return;
    }
    let messages = facts.messages();
    consumer.permits -= i64::from(messages);
    consumer.msg_out += u64::from(messages);
    sub.msg_out += u64::from(messages);
    let head = MessageHead { partition, ..MessageHead::new(consumer.key.id, 0, 0) };
    let position = Position { ledger: 0, entry: 0 };
    let entry = Entry { bytes: bytes.clone(), facts: facts.clone(), position, stored_ms: now_ms, index: 0 };
    conns.message(consumer.key.conn, &head, &entry, false);
}

/// Delayed entries that are due become sendable.
pub(crate) fn wake_delayed(sub: &mut Subscription, now_ms: u64) {
    sub.delayed_timer_ms = None;
    let later = sub.delayed.split_off(&(now_ms.saturating_add(1), 0));
    let due = std::mem::replace(&mut sub.delayed, later);
    sub.replay.extend(due.into_iter().map(|(_, offset)| offset));
}

fn dispatch_single(sub: &mut Subscription, log: &Log, conns: &mut Connections, context: &Context) {
    let Some(key) = sub.active.filter(|_| sub.active_ready) else { return };
    loop {
        let Some(consumer) = sub.consumer(key) else { return };
        if consumer.permits <= 0 {
            return;
        }
        let filtered = !consumer.ranges.is_empty();
        let entries_max = consumer.permits.unsigned_abs().min(READ_ENTRIES_MAX);
        let mut sent = 0;
        while sent < entries_max {
            let Some((offset, entry)) = next_unread(sub, log) else { return };
            if !conns.has_room(key.conn) {
                return;
            }
            sub.read += 1;
            if is_dropped(sub, offset, entry, context) {
                continue;
            }
            if filtered
                && !sub.consumer(key).is_some_and(|one| {
                    one.owns(crate::broker::subscription::key_hashing::sticky_slot(entry.facts.hashing_scheme))
                })
            {
                sub.cursor.ack(offset);
                continue;
            }
            send(sub, offset, entry, key, 0, conns, context);
            sent += 1;
        }
    }
}

fn dispatch_shared(sub: &mut Subscription, log: &Log, conns: &mut Connections, context: &Context) {
    let mut waiting = Vec::new();
    let mut run = 0;
    while let Some((offset, entry)) = next_sendable(sub, log) {
        let Some(next) = next_in_turn(sub, conns, context, &mut run) else { break };
        take(sub, offset);
        if is_dropped(sub, offset, entry, context) || is_delayed(sub, offset, entry, context) {
            continue;
        }
        let Some(key) = chunk_consumer(sub, entry, next, conns, context) else {
            waiting.push(offset);
            continue;
        };
        send(sub, offset, entry, key, 0, conns, context);
        if key == next {
            run += 1;
        }
    }
    sub.replay.extend(waiting);
    if run > 0 {
        sub.turn = sub.turn.wrapping_add(1);
    }
}

/// The consumer whose turn it is: of the best priority level that can take something, one after the other.
fn next_in_turn(
    sub: &mut Subscription,
    conns: &mut Connections,
    context: &Context,
    run: &mut u32,
) -> Option<ConsumerKey> {
    let able: Vec<_> = (0..sub.consumers.len()).map(|index| can_take(sub, index, conns, context)).collect();
    let level = sub.consumers.iter().zip(&able).filter(|(_, able)| **able).map(|(one, _)| one.priority).min()?;
    if *run >= SHARED_RUN_ENTRIES {
        sub.turn = sub.turn.wrapping_add(1);
        *run = 0;
    }
    let count = sub.consumers.len();
    for step in 0..count {
        let index = (sub.turn % count + step) % count;
        if able[index] && sub.consumers[index].priority == level {
            if step > 0 {
                sub.turn = index;
                *run = 0;
            }
            return Some(sub.consumers[index].key);
        }
    }
    None
}

fn can_take(sub: &mut Subscription, index: usize, conns: &mut Connections, context: &Context) -> bool {
    let Some(consumer) = sub.consumers.get_mut(index) else { return false };
    if consumer.unacked >= context.unacked_messages_max {
        consumer.over_unacked = true;
    } else if consumer.unacked <= context.unacked_messages_max / 2 {
        consumer.over_unacked = false;
    }
    consumer.permits > 0 && !consumer.over_unacked && conns.has_room(consumer.key.conn)
}

/// All chunks of a message go to the consumer that got the first; `None` while that one cannot take more.
fn chunk_consumer(
    sub: &mut Subscription,
    entry: &Entry,
    next: ConsumerKey,
    conns: &mut Connections,
    context: &Context,
) -> Option<ConsumerKey> {
    let Some(chunk) = &entry.facts.chunk else { return Some(next) };
    if sub.chunk_owners.len() >= CHUNKED_MAX {
        sub.chunk_owners.pop_first();
    }
    let key = *sub.chunk_owners.entry(Arc::clone(&chunk.uuid)).or_insert(next);
    let index = sub.consumers.iter().position(|consumer| consumer.key == key)?;
    if !can_take(sub, index, conns, context) {
        return None;
    }
    if chunk.last {
        sub.chunk_owners.remove(&chunk.uuid);
    }
    Some(key)
}

fn dispatch_key_shared(sub: &mut Subscription, log: &Log, conns: &mut Connections, context: &Context) {
    loop {
        let mut allowance: BTreeMap<ConsumerKey, u64> = BTreeMap::new();
        for index in 0..sub.consumers.len() {
            if can_take(sub, index, conns, context) {
                let consumer = &sub.consumers[index];
                allowance.insert(consumer.key, consumer.permits.unsigned_abs());
            }
        }
        if allowance.is_empty() || !key_shared_round(sub, log, conns, context, &mut allowance) {
            return;
        }
    }
}

/// One read of a Key_Shared subscription; true if something was sent.
fn key_shared_round(
    sub: &mut Subscription,
    log: &Log,
    conns: &mut Connections,
    context: &Context,
    allowance: &mut BTreeMap<ConsumerKey, u64>,
) -> bool {
    // A key that had to wait once in this round waits to its end: its order is kept.
    let mut waiting_slots = BTreeSet::new();
    let mut sent = 0;
    let mut after = None;
    while sent < READ_ENTRIES_MAX {
        let replayed = sub.replay.range(after.map_or(0, |last: u64| last + 1)..).next().copied();
        let offset = match replayed {
            Some(offset) => offset,
            None if sub.replay.len() < WAITING_ENTRIES_MAX => match next_unread(sub, log) {
                Some((offset, _)) => offset,
                None => break,
            },
            None => break,
        };
        after = Some(offset);
        let Some(entry) = log.get(offset) else {
            sub.replay.remove(&offset);
            continue;
        };
        take(sub, offset);
        if sub.cursor.is_acked(offset)
            || is_dropped(sub, offset, entry, context)
            || is_delayed(sub, offset, entry, context)
        {
            continue;
        }
        let (slot, owner) = sub.owner_of(entry.facts.hashing_scheme);
        let target = owner.filter(|key| !waiting_slots.contains(&slot) && !sub.is_draining(slot, *key));
        let target = target.filter(|key| allowance.get(key).is_some_and(|left| *left > 0) && conns.has_room(key.conn));
        let Some(key) = target else {
            waiting_slots.insert(slot);
            sub.replay.insert(offset);
            continue;
        };
        send(sub, offset, entry, key, slot, conns, context);
        if let Some(left) = allowance.get_mut(&key) {
            *left -= 1;
        }
        sent += 1;
        if allowance.values().all(|left| *left == 0) {
            break;
        }
    }
    sent > 0
}

/// The next entry that was never read and is not acknowledged.
fn next_unread<'a>(sub: &mut Subscription, log: &'a Log) -> Option<(u64, &'a Entry)> {
    while sub.cursor.is_acked(sub.read) && sub.read < log.end() {
        sub.read += 1;
    }
    log.get(sub.read).map(|entry| (sub.read, entry))
}

/// The next entry to be sent again, else the next unread one. It stays where it is until [`take`].
fn next_sendable<'a>(sub: &mut Subscription, log: &'a Log) -> Option<(u64, &'a Entry)> {
    while let Some(offset) = sub.replay.first().copied() {
        match log.get(offset) {
            Some(entry) if !sub.cursor.is_acked(offset) => return Some((offset, entry)),
            _ => sub.replay.remove(&offset),
        };
    }
    next_unread(sub, log)
}

fn take(sub: &mut Subscription, offset: u64) {
    if !sub.replay.remove(&offset) && offset == sub.read {
        sub.read += 1;
    }
}

/// An entry whose metadata cannot be read is acknowledged instead of sent, unless the settings want it delivered.
fn is_dropped(sub: &mut Subscription, offset: u64, entry: &Entry, context: &Context) -> bool {
    if entry.facts.readable || context.damaged == DamagedEntries::Deliver {
        return false;
    }
    sub.cursor.ack(offset);
    sub.settle(offset);
    true
}

fn is_delayed(sub: &mut Subscription, offset: u64, entry: &Entry, context: &Context) -> bool {
    match entry.facts.deliver_at_ms {
        Some(due_ms) if due_ms > context.now_ms => {
            sub.delayed.insert((due_ms, offset));
            true
        }
        _ => false,
    }
}

fn send(
    sub: &mut Subscription,
    offset: u64,
    entry: &Entry,
    key: ConsumerKey,
    slot: u32,
    conns: &mut Connections,
    context: &Context,
) {
    let epoch = if sub.is_single_active() { sub.consumer(key).and_then(|consumer| consumer.epoch) } else { None };
    let position = entry.position;
    let head = MessageHead {
        consumer_id: key.id,
        ledger_id: position.ledger as u64,
        entry_id: position.entry as u64,
        partition: context.partition,
        redelivery_count: sub.redelivery_count(offset),
        ack_set: sub.cursor.ack_set(offset),
        consumer_epoch: epoch,
    };
    let messages = sub.cursor.left(offset, entry.facts.messages());
    let copies = conns.message(key.conn, &head, entry, context.broker_entry_metadata);
    sub.deliver(offset, key, messages, slot);
    if let Some(consumer) = sub.consumer_mut(key).filter(|_| copies > 1) {
        consumer.permits -= i64::from(messages) * i64::from(copies - 1);
    }
}
