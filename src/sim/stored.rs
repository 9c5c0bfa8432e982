//! The stored messages of the brokers, one by one, for the checks of an application.

use crate::broker::StoredMessage;
use crate::broker::machine::Broker;
use crate::id::MessageId;

/// Those that can be opened: what the network damaged is no message.
pub(super) fn stored(broker: &Broker, topic: &str) -> Vec<StoredMessage> {
    broker.stored_messages(topic).into_iter().filter(|message| message.is_open).collect()
}

pub(super) fn is_acknowledged(broker: &Broker, topic: &str, subscription: &str, id: &MessageId) -> Option<bool> {
    let id = id.position();
    broker.is_acknowledged(topic, subscription, (id.ledger_id, id.entry_id), u32::try_from(id.batch_index).ok())
}
