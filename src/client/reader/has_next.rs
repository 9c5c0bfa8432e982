//! Whether there is a message to be read: the reader's position beside the last message of each topic.

use std::sync::Arc;

use super::Reader;
use crate::client::clock;
use crate::client::parts::Part;
use crate::error::Result;
use crate::id::MessagePosition;
use crate::machine::consumer::{Consumer as Machine, KeySharedPolicy, LastMessageId, SeekTo};
use crate::machine::{Deferred, Reply};

impl Reader {
    /// Whether a message is there to be read: one has arrived, or the broker has one behind the reader's position
    /// (GET_LAST_MESSAGE_ID) of any topic or partition. Java: `hasMessageAvailable`.
    ///
    /// | the topic | says |
    /// | --- | --- |
    /// | is empty, was truncated, or all of it was removed by compaction | false |
    /// | is terminated | false once it is read to its end |
    /// | is [read compacted](super::ReaderBuilder::read_compacted) | whether the compacted view has a message behind the position |
    /// | has messages that expire unread (time to live) | false once all have |
    /// | was sought by time, on a broker before 2.7 | true until a message is read: the broker does not say where that is |
    /// | has [key ranges](super::ReaderBuilder::key_hash_range) to be read | true also if what is there is of other keys |
    ///
    /// # Errors
    /// - The reason why the reader has ended.
    /// - The broker's refusal: on a non-persistent topic, which stores nothing, `UnknownError`.
    /// - [`TimedOut`](crate::ErrorKind::TimedOut) after the operation timeout.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the request and loses no message.
    pub async fn has_next(&mut self) -> Result<bool> {
        if self.current_found().next().is_some() {
            return Ok(true);
        }
        self.found.clear();
        if let Some(message) = self.consumer.try_receive()? {
            self.keep_found(message);
            return Ok(true);
        }
        let answers = self.last_messages().await?;
        let positions = self.consumer.reading_positions();
        let last_of = |id| answers.iter().find(|(of, _)| of.id() == id).map(|(_, last)| last);
        Ok(positions.into_iter().any(|(part, from)| last_of(part.id()).is_some_and(|last| is_ahead(last, &from))))
    }

    /// Whether the broker leaves out messages.
    pub(super) fn reads_ranges(&self) -> bool {
        matches!(self.shared().config.key_shared_policy, KeySharedPolicy::Sticky(_))
    }

    /// The last message of each topic and partition. One that ends or leaves meanwhile is not among them.
    pub(super) async fn last_messages(&self) -> Result<Vec<(Arc<Part<Machine>>, LastMessageId)>> {
        let asked: Vec<_> = self.ask_for_last_messages().collect();
        let mut answers = Vec::with_capacity(asked.len());
        for (part, answer) in asked {
            match answer.await {
                Err(_) if part.read(Machine::is_finished) => {}
                answer => answers.push((part, answer?)),
            }
        }
        Ok(answers)
    }

    /// Asks for the last message of each topic and partition.
    pub(super) fn ask_for_last_messages(&self) -> impl Iterator<Item = (Arc<Part<Machine>>, Reply<LastMessageId>)> {
        let ask = |consumer: &mut Machine, reply, deferred: &mut Deferred| {
            consumer.last_message_id(reply, clock::now(), deferred);
        };
        self.consumer.parts().ask_those(|_| false, ask)
    }
}

/// Whether the last message of a topic lies at the position, or behind it.
pub(in crate::client) fn is_ahead(last: &LastMessageId, from: &SeekTo) -> bool {
    let id = last.id;
    if id.entry_id == u64::MAX {
        return false;
    }
    let is_past = last.mark_delete.is_some_and(|mark| place(&id) <= place(&mark));
    if is_past && !matches!(from, SeekTo::Message { inclusive: true, .. }) {
        // The reader acknowledges what was read; the rest has expired (the topic's time to live).
        return false;
    }
    match from {
        SeekTo::Earliest => true,
        SeekTo::Message { id: read, inclusive } => match (place(&read.position()), place(&id)) {
            (read, last) if read != last => read < last && !mutation!(HasNextForgetsStored),
            // A whole entry, or the members of it that are behind this one.
            _ => match (read.batch_index(), inclusive) {
                (_, true) => read.position().batch_index <= id.batch_index.max(0),
                (Some(index), false) => i64::from(index) < i64::from(id.batch_index),
                (None, false) => mutation!(HasNextAtEnd),
            },
        },
        // Not resolved: the broker does not say where it is.
        SeekTo::Latest | SeekTo::PublishTime(_) => true,
    }
}

/// Ledger and entry, in the order of storage.
pub(super) fn place(position: &MessagePosition) -> (i64, i64) {
    (position.ledger_id as i64, position.entry_id as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::MessageId;

    fn last(entry_id: u64, batch_index: i32) -> LastMessageId {
        LastMessageId { id: MessagePosition { batch_index, ..MessagePosition::new(5, entry_id) }, mark_delete: None }
    }

    fn after(id: MessageId) -> SeekTo {
        SeekTo::Message { id, inclusive: false }
    }

    fn at(id: MessageId) -> SeekTo {
        SeekTo::Message { id, inclusive: true }
    }

    #[test]
    fn positions_beside_the_last_message() {
        let empty = LastMessageId { id: MessagePosition::EARLIEST, mark_delete: None };
        let marked = LastMessageId { mark_delete: Some(MessagePosition::new(5, 3)), ..last(3, -1) };
        let whole = MessageId::new(5, 3);
        for (case, last, from, expected) in [
            ("empty", empty, SeekTo::Earliest, false),
            ("empty, of a message", empty, after(whole.clone()), false),
            ("a ledger without entries", last(u64::MAX, -1), SeekTo::Earliest, false),
            ("from the beginning", last(0, -1), SeekTo::Earliest, true),
            ("read", last(3, -1), after(whole.clone()), false),
            ("at the last one", last(3, -1), at(whole.clone()), true),
            ("behind the last one", last(3, -1), at(MessageId::new(5, 4)), false),
            ("one more", last(4, -1), after(whole.clone()), true),
            ("in a later ledger", last(0, -1), after(MessageId::new(4, 9)), true),
            ("a batch that was read", last(3, 4), after(whole.clone()), false),
            ("a batch that was read in part", last(3, 4), after(whole.clone().with_batch(3, 5)), true),
            ("its last member", last(3, 4), after(whole.clone().with_batch(4, 5)), false),
            ("at its last member", last(3, 4), at(whole.clone().with_batch(4, 5)), true),
            ("a batch of one", last(3, 0), after(whole.clone()), false),
            ("at a batch of one", last(3, -1), at(whole.clone().with_batch(0, 1)), true),
            ("at the end", marked, SeekTo::Latest, false),
            ("expired", marked, after(MessageId::new(5, 1)), false),
            ("sought anew", marked, at(whole.clone()), true),
            ("where nothing is known", last(3, -1), SeekTo::Latest, true),
        ] {
            assert_eq!(is_ahead(&last, &from), expected, "{case}");
        }
    }
}
