//! Readers: consumers whose subscription is not durable.
//!
//! A [`Reader`] is a face of a [`Consumer`]: its parts, queue, order and reconnects are the consumer's. What is its own is
//! where it begins, and that the position is kept by the client: in the machine, `consumer/reading.rs`, and on the receiving
//! side, `receive/source/progress.rs`.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::consumer::Consumer;
use super::consumer_shared::ConsumerShared;
use super::events::ConsumerEvents;
use super::message::ReceivedMessage;
use super::parts::Part;
use super::seek::{is_end_of_any, moves_all};
use super::state::{HandleState, StateWatch};
use super::why_idle::WhyIdle;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::id::MessageId;
use crate::machine::consumer::{Consumer as Machine, ConsumerStats, SeekTo};

mod builder;
mod checkpoint;
mod has_next;
mod start;
mod until;

pub use builder::ReaderBuilder;
pub(super) use has_next::is_ahead;
pub(super) use start::Positions;
pub use start::ReaderStart;
pub use until::{MessagesUntil, ReadUntil};

/// Whether the last message is to be the first that is read: the id [`MessageId::LATEST`], inclusive, of whichever topic.
fn is_at_last(to: &SeekTo) -> bool {
    matches!(to, SeekTo::Message { inclusive: true, .. }) && to.clone().normal() == SeekTo::Latest
}

/// How many seeks have moved a topic or partition.
fn seek_number_of(part: &Part<Machine>) -> Option<u32> {
    part.read(Machine::reading).map(|(_, seek_number)| seek_number)
}

/// Found by [`Reader::has_next`], or behind the end of [`Reader::until`]: to be read next.
struct Found {
    message: ReceivedMessage,
    /// The seek of its topic or partition that it was read after.
    seek_number: Option<u32>,
}

/// Reads topics from a position of its own, without acknowledgements; created by [`Client::reader`](super::Client::reader).
/// Java: `Reader`.
///
/// Its subscriptions are not durable (`CommandSubscribe.durable`): the broker keeps no position, and nothing is left of
/// them once the reader is gone. The reader keeps it: over reconnects each message is read once, and in order within a
/// topic or partition. Where a topic is deleted and made again, or the client goes to another cluster, what is there is read
/// from the beginning.
///
/// A broker removes what no subscription has still to acknowledge, with its ledger, unless the retention of the namespace or topic
/// keeps it. The subscription of a reader holds it only while the reader is attached: on a topic that is to be read with gaps in
/// the connection, set a retention, or have a durable subscription.
///
/// ```no_run
/// # async fn example(client: pulsar_native::Client) -> Result<(), pulsar_native::Error> {
/// use pulsar_native::SeekTo;
///
/// let mut reader = client.reader("orders", SeekTo::Earliest).create().await?;
/// while reader.has_next().await? {
///     let message = reader.read_next().await?;
///     println!("{}: {}", message.id(), message.to_string_lossy());
/// }
/// # Ok(())
/// # }
/// ```
///
/// It is also a [`Stream`] of messages. Dropping it closes it at the broker.
pub struct Reader {
    consumer: Consumer,
    /// Of a topic or partition one at most.
    found: VecDeque<Found>,
}

impl Reader {
    fn new(consumer: Consumer) -> Self {
        Self { consumer, found: VecDeque::new() }
    }

    /// What was found, but for that whose topic or partition was sought elsewhere since.
    fn current_found(&self) -> impl Iterator<Item = &Found> {
        self.found.iter().filter(|found| self.is_current(found))
    }

    /// A topic that has ended and joined again is another part, which was not sought unless the application did so since.
    fn is_current(&self, found: &Found) -> bool {
        let own = found.message.part();
        let again = self.consumer.parts().of_topic(&own.topic).filter(|part| part.id() != own.id());
        seek_number_of(own) == found.seek_number && again.is_none_or(|part| seek_number_of(&part) == Some(0))
    }

    fn take_found(&mut self) -> Option<ReceivedMessage> {
        let mut found = self.found.pop_front()?;
        while !self.is_current(&found) {
            found = self.found.pop_front()?;
        }
        Some(found.message)
    }

    /// Keeps a message that was received, to be read next.
    fn keep_found(&mut self, message: ReceivedMessage) {
        let seek_number = seek_number_of(message.part());
        self.found.push_back(Found { message, seek_number });
    }

    /// What it shares with what reads for others.
    pub(super) fn shared(&self) -> &Arc<ConsumerShared> {
        self.consumer.shared()
    }

    /// Its position in each topic and partition.
    pub(super) fn reading_positions(&mut self) -> Vec<(Arc<Part<Machine>>, SeekTo)> {
        self.consumer.reading_positions()
    }

    /// The next message; waits for one. Java: `readNext`.
    ///
    /// What cannot be read is an [event](Self::events), as with a [consumer](Consumer::receive), and counts as read.
    ///
    /// # Errors
    /// The reason why the reader has ended: it was closed, or the last of its topics and partitions has ended permanently.
    ///
    /// # Cancel safety
    /// Dropping the future loses no message and has no other effect.
    pub async fn read_next(&mut self) -> Result<ReceivedMessage> {
        match self.take_found() {
            Some(message) => Ok(message),
            None => self.consumer.receive().await,
        }
    }

    /// The next message that has arrived already, if any. That there is none does not say that the topic has none: see
    /// [`Self::has_next`].
    ///
    /// # Errors
    /// Same as [`Self::read_next`].
    pub fn try_read_next(&mut self) -> Result<Option<ReceivedMessage>> {
        match self.take_found() {
            Some(message) => Ok(Some(message)),
            None => self.consumer.try_receive(),
        }
    }

    /// Goes to another position (SEEK) and returns once messages from there are read. Java: `seek`.
    ///
    /// A seek to an id moves only the topic or partition that the id names; any other moves all of them: to move each
    /// elsewhere, [`seek_to_checkpoint`](Self::seek_to_checkpoint). After [`SeekTo::Latest`] what is published from now on is
    /// read, also if the connection is lost before the first message. The id [`MessageId::LATEST`], inclusive, makes the last
    /// message of each topic and partition the next one.
    ///
    /// A topic of a pattern that is not there at the moment, because it was deleted or a broker refuses it, begins at the
    /// position that all are moved to when it joins again. Where that is the end, or the last message, it begins with what is
    /// published from the seek on, by the clocks of this client and of its producers. A seek to an id of such a topic is an
    /// error: of the topic's end, or [`InvalidArgument`](crate::ErrorKind::InvalidArgument) once it has left the reader.
    ///
    /// # Errors
    /// Same as [`Consumer::seek`].
    ///
    /// # Cancel safety
    /// Once it was polled, the seek is requested even if the future is dropped; to the last message, once the broker has said
    /// which that is. What is read after an end or a time is certain once it has returned.
    pub async fn seek(&mut self, to: SeekTo) -> Result<()> {
        if let SeekTo::Message { id, .. } = &to {
            if is_at_last(&to) {
                return self.seek_to_last(id).await;
            }
        }
        let is_open = matches!(to.clone().normal(), SeekTo::Latest | SeekTo::PublishTime(_));
        if moves_all(&to) {
            self.set_known(Checkpoint::new());
        }
        self.consumer.seek(to).await?;
        if is_open { self.resolve_position().await } else { Ok(()) }
    }

    fn has_one_part(&self) -> bool {
        self.consumer.parts().iter().nth(1).is_none()
    }

    /// Everything is to move; these are the positions of topics and partitions that join later.
    fn set_known(&mut self, known: Checkpoint) {
        // Also of topics that have left.
        self.found.clear();
        if let Some(positions) = &self.consumer.shared().positions {
            positions.set_known(known);
        }
    }

    /// Goes to the last message of each topic and partition, or of the one that the id names; where there is none, to the
    /// beginning.
    async fn seek_to_last(&mut self, id: &MessageId) -> Result<()> {
        let only = if is_end_of_any(id) { None } else { Some(self.consumer.shared().part_of_id(id)?.id()) };
        let mut last = HashMap::new();
        for (part, answer) in self.last_messages().await? {
            let mut id = answer.id;
            if id.batch_index >= 0 {
                // The broker names the last member.
                id.batch_size = id.batch_index.saturating_add(1);
            }
            let id = MessageId::from_position(id);
            let to = match id.entry_id() {
                Some(_) => SeekTo::Message { id, inclusive: true },
                None => SeekTo::Earliest,
            };
            if only.is_none_or(|only| only == part.id()) {
                last.insert(part.topic.clone(), to);
            }
        }
        let shared = self.consumer.shared().clone();
        if only.is_none() {
            self.set_known(Checkpoint::new());
        }
        let has_ended = |topic: &str| shared.parts.of_topic(topic).is_none_or(|part| part.read(Machine::is_finished));
        let to_last = |topic: &str| match last.get(topic) {
            None if only.is_none() && has_ended(topic) => Some(SeekTo::Latest),
            last => last.cloned(),
        };
        self.consumer.seek_each(to_last).await
    }

    /// Resolves positions that depend on when the broker is asked, Latest and publish times, so that a SUBSCRIBE after a lost
    /// connection names the same one.
    async fn resolve_position(&self) -> Result<()> {
        for (part, answer) in self.ask_for_last_messages() {
            match answer.await {
                // A topic that is not persistent has no positions.
                Err(error) if error.server_error().is_some() || part.read(Machine::is_finished) => {}
                answer => drop(answer?),
            }
        }
        Ok(())
    }

    /// The id of the last message (GET_LAST_MESSAGE_ID) of each topic and partition. Java: `getLastMessageIds`.
    ///
    /// # Errors
    /// Same as [`Consumer::last_message_ids`].
    ///
    /// # Cancel safety
    /// Dropping the future abandons the request.
    pub async fn last_message_ids(&self) -> Result<Vec<MessageId>> {
        self.consumer.last_message_ids().await
    }

    /// Requests no more messages of the broker until [`resume`](Self::resume); those it was asked for before still come.
    pub fn pause(&self) {
        self.consumer.pause();
    }

    /// Requests messages again.
    pub fn resume(&self) {
        self.consumer.resume();
    }

    /// The events of the reader: a topic or partition has ended, a message cannot be read. See [`Consumer::events`].
    pub fn events(&self) -> ConsumerEvents {
        self.consumer.events()
    }

    /// What it has counted since it was created. What has been read is acknowledged, several messages at a time, so that
    /// the statistics of the broker say how far it is.
    pub fn stats(&self) -> ConsumerStats {
        self.consumer.stats()
    }

    /// Why no message comes, if none does: see [`Consumer::why_idle`].
    ///
    /// # Cancel safety
    /// Dropping the future abandons the requests.
    pub async fn why_idle(&self) -> WhyIdle {
        self.consumer.why_idle().await
    }

    /// The full names of the topics it was created for, or the pattern.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.consumer.topics()
    }

    /// The name of its subscriptions: see [`ReaderBuilder::subscription_name`].
    pub fn subscription(&self) -> &str {
        self.consumer.subscription()
    }

    /// Whether every topic and partition is terminated and read to its end (REACHED_END_OF_TOPIC): no more messages will
    /// arrive.
    pub fn has_reached_end_of_topic(&self) -> bool {
        self.current_found().next().is_none() && self.consumer.has_reached_end_of_topic()
    }

    /// Where each topic and partition is attached, or why it is not.
    pub fn state(&self) -> HandleState {
        self.consumer.state()
    }

    /// [`Self::state`] now and after each change.
    pub fn watch_state(&self) -> StateWatch<HandleState> {
        self.consumer.watch_state()
    }

    /// Whether every topic and partition is attached to a broker at the moment. Java: `isConnected`.
    pub fn is_connected(&self) -> bool {
        self.consumer.is_connected()
    }

    /// Why the first topic or partition that is not attached is not attached: see [`Consumer::connection_error`].
    pub fn connection_error(&self) -> Option<Error> {
        self.consumer.connection_error()
    }

    /// Closes it at the broker (CLOSE_CONSUMER), which forgets its subscriptions, and waits for the answer.
    ///
    /// # Errors
    /// - [`TimedOut`](crate::ErrorKind::TimedOut): no answer within the operation timeout.
    /// - The broker's refusal.
    ///
    /// The reader has ended in either case.
    ///
    /// # Cancel safety
    /// The close continues when the future is dropped.
    pub async fn close(&self) -> Result<()> {
        self.consumer.close().await
    }
}

impl Stream for Reader {
    type Item = Result<ReceivedMessage>;

    /// The messages that [`Reader::read_next`] returns. The error that ends the reader is the last item.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.take_found() {
            Some(message) => Poll::Ready(Some(Ok(message))),
            None => Pin::new(&mut self.consumer).poll_next(cx),
        }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topics: Vec<_> = self.topics().collect();
        write!(f, "Reader({} of {})", self.subscription(), topics.join(", "))
    }
}
