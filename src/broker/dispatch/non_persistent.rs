//! Non-persistent topics: an entry goes to the consumer that can take it now, or is lost.

use bytes::Bytes;

use crate::broker::connections::Connections;
use crate::broker::storage::{EntryInfo, EntryPosition, StoredEntry};
use crate::broker::subscription::{SubscribedConsumer, Subscription};
use crate::pb::command_subscribe::SubType;
use crate::wire::hot::MessageHead;

/// An entry that is not stored.
#[derive(Debug, Clone)]
pub(crate) struct TransientEntry {
    pub(crate) bytes: Bytes,
    pub(crate) info: EntryInfo,
    /// The topic's partition number, −1 for none.
    pub(crate) partition: i32,
    /// ms since 1970.
    pub(crate) now_ms: u64,
}

/// Sends an entry to one consumer of the subscription, if that one has permits and room.
///
/// Only a Shared subscription tries the next consumer. Priorities and the limit of unacknowledged messages do not
/// apply. Markers go to none.
pub(crate) fn dispatch_transient(sub: &mut Subscription, entry: &TransientEntry, connections: &mut Connections) {
    if entry.info.is_marker {
        return;
    }
    let is_open = |consumer: &SubscribedConsumer, connections: &mut Connections| {
        consumer.permits > 0 && connections.has_room(consumer.key.conn)
    };
    let chosen = match sub.sub_type() {
        SubType::Exclusive | SubType::Failover => sub.active.active().and_then(|key| sub.consumers.get(key)),
        SubType::KeyShared => sub.owner_of(entry.info.key_hash).1.and_then(|key| sub.consumers.get(key)),
        SubType::Shared => {
            sub.rotation.advance();
            let mut in_turn = sub.rotation.order(sub.consumers.len()).filter_map(|index| sub.consumers.at(index));
            in_turn.find(|consumer| is_open(consumer, connections))
        }
    };
    let Some(key) = chosen.filter(|consumer| is_open(consumer, connections)).map(|consumer| consumer.key) else {
        return;
    };
    let head = MessageHead { partition: entry.partition, ..MessageHead::new(key.id, 0, 0) };
    let sent = StoredEntry {
        bytes: entry.bytes.clone(),
        info: entry.info.clone(),
        position: EntryPosition { ledger: 0, entry: 0 },
        stored_ms: entry.now_ms,
        index: 0,
    };
    sub.record_transient_delivery(key, entry.info.messages());
    connections.send_message(key.conn, &head, &sent, false);
}
