//! Reading up to an end.
//!
//! The end of each topic and partition is the place of its last message, which the broker names at the beginning
//! (GET_LAST_MESSAGE_ID). The stream is over once each has come there:
//!
//! | a topic or partition has come to its end | by |
//! | --- | --- |
//! | it gives the message at its end, or one behind it | that message; one behind it is kept for later |
//! | what lies at its end gives no message: it was compacted out, or cannot be read | the position of the reader, once nothing more is here |
//! | what lies at its end is there no more: truncated, expired, compacted | the broker, which is asked again when nothing comes |
//! | positions are others now: the client has changed to another cluster | the number of its seeks |
//! | it has ended for good, or left the reader | its end, which is an error where topics do not come and go |
//!
//! From then on it is held: what comes of it stays in its queue.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures_core::Stream;

use super::has_next::{is_ahead, place};
use super::{Found, Reader, seek_number_of};
use crate::checkpoint::Checkpoint;
use crate::client::clock;
use crate::client::message::ReceivedMessage;
use crate::client::parts::Part;
use crate::client::runtime::AsyncTimer;
use crate::error::{Error, ErrorKind, Result};
use crate::id::MessagePosition;
use crate::machine::consumer::{Consumer as Machine, LastMessageId, SeekTo};
use crate::machine::{EndpointId, Reply};
use crate::wall_time::to_ms;

/// How long nothing comes until the broker is asked again what the last messages are; each time twice as long.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);
const ASK_AGAIN_AFTER_MAX: Duration = Duration::from_secs(30);

/// Where [`Reader::until`] ends.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ReadUntil {
    /// Behind the last message that each topic and partition has at the time of the call.
    Now,
    /// Of each topic and partition before the first message that was published at this time or later
    /// (`MessageMetadata.publish_time`, by the clock of its producer), and behind the last one at the latest. A time that has
    /// passed.
    PublishTime(SystemTime),
    /// Behind the position of each topic and partition, and behind its last message at the latest. Of those that have no
    /// position nothing is read.
    Position(Checkpoint),
}

/// The messages of a reader up to an end: see [`Reader::until`].
#[must_use = "streams do nothing unless polled"]
pub struct MessagesUntil<'a> {
    reader: &'a mut Reader,
    /// What the reader had found before, and lies before the end.
    first: VecDeque<Found>,
    /// Of the topics and partitions that are not at their ends.
    ends: HashMap<Arc<str>, End>,
    /// The first publish time that ends one.
    before: Option<SystemTime>,
    /// Why one has ended short of its end.
    error: Option<Error>,
    asking: Asking,
}

/// The end of a topic or partition.
#[derive(Debug, Clone, Copy)]
struct End {
    /// Of the last message that is read.
    place: Place,
    /// The part, and the seeks that have moved it. After another one places are not comparable.
    part: EndpointId,
    seek_number: Option<u32>,
}

/// Ledger, entry, and member of its batch: the largest number for the last one, or a whole entry.
type Place = (i64, i64, u32);

fn place_of(position: &MessagePosition) -> Place {
    let (ledger, entry) = place(position);
    let is_last = position.batch_index.saturating_add(1) == position.batch_size;
    let member = u32::try_from(position.batch_index).ok().filter(|_| !is_last);
    (ledger, entry, member.unwrap_or(u32::MAX))
}

/// The place of the last message of a topic. The broker names the last member of a batch.
fn place_of_last(last: &LastMessageId) -> Place {
    let (ledger, entry) = place(&last.id);
    (ledger, entry, u32::MAX)
}

/// Asks again what the last messages are, while nothing comes.
struct Asking {
    timer: Box<dyn AsyncTimer>,
    is_timed: bool,
    wait: Duration,
    answers: Vec<(Arc<Part<Machine>>, Reply<LastMessageId>)>,
}

impl Reader {
    /// The messages from here to an end, as a [`Stream`] that ends there. What is behind the end is read by what comes
    /// afterwards, by this reader.
    ///
    /// The end is fixed by this call, which asks each topic and partition for its last message (GET_LAST_MESSAGE_ID): what is
    /// published later is behind it, and so are partitions and topics that join later.
    ///
    /// | the topic, meanwhile | the stream |
    /// | --- | --- |
    /// | is empty, was truncated or expired (time to live) | ends there once the broker says so, within seconds |
    /// | is compacted, or terminated | ends behind the last message that is left |
    /// | has ended for good, before its end | gives the error as its last item, once the others are at their ends; of a pattern's topic nothing but the [event](Self::events) |
    /// | is on another cluster, to which the client has changed | ends there |
    /// | was sought by time, on a broker before 2.7 | waits for a message: the broker does not say where that is |
    ///
    /// While it is read, of a topic or partition that is at its end
    /// [`receiver_queue_size`](super::ReaderBuilder::receiver_queue_size) messages wait in the reader.
    ///
    /// Java has no such call. Its loop of `hasMessageAvailable` and `readNext`, here [`has_next`](Self::has_next) and
    /// [`read_next`](Self::read_next), ends when all that there is at some moment is read; on topics that are written to as
    /// fast as they are read, never.
    ///
    /// ```no_run
    /// # async fn example(mut reader: pulsar_native::Reader) -> Result<(), pulsar_native::Error> {
    /// use pulsar_native::ReadUntil;
    ///
    /// let mut messages = reader.until(ReadUntil::Now).await?;
    /// while let Some(message) = messages.next().await {
    ///     println!("{}", message?.to_string_lossy());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): a time to come; a reader of
    ///   [key ranges](super::ReaderBuilder::key_hash_range), to which the broker does not say where they end.
    /// - Same as [`has_next`](Self::has_next).
    ///
    /// # Cancel safety
    /// Dropping the future, or the stream, loses no message: the reader goes on behind the last one that was returned.
    pub async fn until(&mut self, end: ReadUntil) -> Result<MessagesUntil<'_>> {
        if self.reads_ranges() {
            let what = "`until` of a reader with `key_hash_range`: the broker does not say where the ranges end";
            return Err(Error::local(ErrorKind::InvalidArgument, what));
        }
        let before = match end {
            ReadUntil::PublishTime(time) => Some(time),
            ReadUntil::Now | ReadUntil::Position(_) => None,
        };
        if before.is_some_and(|time| u64::try_from(to_ms(time)).is_ok_and(|ms| ms > clock::wall_ms())) {
            let what = "`until` a time to come: what will have been published by then is not known";
            return Err(Error::local(ErrorKind::InvalidArgument, what));
        }
        let answers = self.last_messages().await?;
        let last_of: HashMap<_, _> = answers.iter().map(|(part, last)| (part.id(), last)).collect();
        let mut until = MessagesUntil::new(self, before);
        for (part, from) in until.reader.consumer.reading_positions() {
            let last = last_of.get(&part.id());
            match last.and_then(|last| until.end_of(&part, &from, last, &end)) {
                Some(end) => drop(until.ends.insert(part.topic.clone(), end)),
                None => until.reader.consumer.hold_part(part.id()),
            }
        }
        for found in std::mem::take(&mut until.reader.found) {
            if !until.reader.is_current(&found) {
                continue;
            }
            if until.is_before_end(&found.message) {
                until.first.push_back(found);
            } else {
                until.end(&found.message);
                until.reader.found.push_back(found);
            }
        }
        Ok(until)
    }
}

impl<'a> MessagesUntil<'a> {
    fn new(reader: &'a mut Reader, before: Option<SystemTime>) -> Self {
        let timer = reader.shared().new_timer();
        let asking = Asking { timer, is_timed: false, wait: ASK_AGAIN_AFTER, answers: Vec::new() };
        Self { reader, first: VecDeque::new(), ends: HashMap::new(), before, error: None, asking }
    }

    /// The end of a part, which is read up to `from` and has this last message. `None`: it is there already.
    fn end_of(&self, part: &Part<Machine>, from: &SeekTo, last: &LastMessageId, end: &ReadUntil) -> Option<End> {
        let found = self.reader.current_found().find(|found| found.message.topic() == &*part.topic);
        let found = found.map(|found| place_of(&found.message.position()));
        if found.is_none() && !is_ahead(last, from) {
            return None;
        }
        // What was found is there, whatever has become of the topic since.
        let last = place_of_last(last).max(found.unwrap_or((i64::MIN, 0, 0)));
        let place = match end {
            ReadUntil::Position(checkpoint) => last.min(place_of(&checkpoint.position(&part.topic)?.position())),
            ReadUntil::Now | ReadUntil::PublishTime(_) => last,
        };
        Some(End { place, part: part.id(), seek_number: seek_number_of(part) })
    }

    /// The next message; `None` at the end.
    ///
    /// # Errors
    /// - The reason why the reader has ended.
    /// - The reason why a topic or partition has ended short of its end, as the last item.
    ///
    /// # Cancel safety
    /// Dropping the future loses no message.
    pub async fn next(&mut self) -> Option<Result<ReceivedMessage>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    fn is_before_end(&self, message: &ReceivedMessage) -> bool {
        let is_late = |time| message.publish_time() >= time;
        let end = self.ends.get(message.topic());
        let at = place_of(&message.position());
        let is_at_end = |end: &End| at == end.place && !mutation!(UntilOneShort);
        end.is_some_and(|end| at < end.place || is_at_end(end)) && !self.before.is_some_and(is_late)
    }

    /// Returns a message that lies before the end, and keeps any other for later.
    fn admit(&mut self, message: ReceivedMessage) -> Option<ReceivedMessage> {
        let is_before_end = self.is_before_end(&message);
        let end = self.ends.get(message.topic());
        if !is_before_end || end.is_some_and(|end| end.place == place_of(&message.position())) {
            self.end(&message);
        }
        if is_before_end {
            return Some(message);
        }
        if !mutation!(UntilForgetsTaken) {
            self.reader.keep_found(message);
        }
        None
    }

    /// The topic or partition of a message is at its end.
    fn end(&mut self, message: &ReceivedMessage) {
        self.ends.remove(message.topic());
        self.reader.consumer.hold_part(message.part().id());
    }

    /// The next message before the end that has come, or the error that has ended the reader.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<ReceivedMessage>> {
        while let Some(found) = self.first.pop_front() {
            if !self.reader.is_current(&found) {
                continue;
            }
            if let Some(message) = self.admit(found.message) {
                return Poll::Ready(Ok(message));
            }
        }
        while !self.ends.is_empty() {
            match self.reader.consumer.poll_receive(cx) {
                Poll::Ready(Ok(message)) => {
                    if let Some(message) = self.admit(message) {
                        return Poll::Ready(Ok(message));
                    }
                }
                other => return other,
            }
        }
        Poll::Pending
    }

    /// Holds the parts that have come to their ends without a message there, now that nothing of them is here.
    fn settle(&mut self) {
        let positions = self.reader.consumer.reading_positions();
        let quiet = self.reader.shared().joining.follows_pattern;
        let mut left = std::mem::take(&mut self.ends);
        for (part, from) in positions {
            let Some(end) = left.remove(&part.topic) else { continue };
            // A topic that has ended and joined again is another part, with no seek of its own yet; its position is that of the first.
            let before = if part.id() == end.part { end.seek_number } else { Some(0) };
            let has_moved = seek_number_of(&part) != before;
            let has_passed = match &from {
                SeekTo::Message { id, inclusive: false } => place_of(&id.position()) >= end.place,
                _ => false,
            };
            let ended = self.reader.consumer.end_of_part(part.id());
            if !has_moved && !has_passed && ended.is_none() {
                self.ends.insert(part.topic.clone(), end);
                continue;
            }
            // Topics of a pattern come and go, until it is closed.
            let is_short = |error: &&Error| !has_passed && (!quiet || error.kind() == ErrorKind::Closed);
            self.error = self.error.take().or_else(|| ended.filter(is_short).cloned());
            self.reader.consumer.hold_part(part.id());
        }
    }

    /// Asks for the last messages if nothing has come for a while. True once another part turns out to be at its end.
    fn poll_last_messages(&mut self, cx: &mut Context<'_>) -> bool {
        let open = self.ends.len();
        loop {
            for (part, last) in self.asking.poll_answers(cx) {
                let positions = self.reader.consumer.reading_positions();
                let position = positions.iter().find(|(other, _)| other.id() == part.id());
                if position.is_some_and(|(_, from)| !is_ahead(&last, from)) {
                    self.ends.remove(&part.topic);
                    self.reader.consumer.hold_part(part.id());
                }
            }
            if self.ends.len() < open {
                return true;
            }
            if !self.asking.answers.is_empty() || self.asking.poll_timer(cx).is_pending() {
                return false;
            }
            let parts = self.reader.consumer.parts();
            let open = self.ends.keys().filter_map(|topic| parts.of_topic(topic)).collect();
            self.asking.ask(open);
        }
    }
}

impl Asking {
    /// Ready once it is time to ask. From its first call on the time runs.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !std::mem::replace(&mut self.is_timed, true) {
            self.timer.reset(clock::now().at + self.wait);
        }
        self.timer.poll(cx)
    }

    /// Something has come.
    fn restart(&mut self) {
        self.is_timed = false;
        self.wait = ASK_AGAIN_AFTER;
        self.answers.clear();
    }

    fn ask(&mut self, parts: Vec<Arc<Part<Machine>>>) {
        self.is_timed = false;
        self.wait = (self.wait * 2).min(ASK_AGAIN_AFTER_MAX);
        let ask = |part: Arc<Part<Machine>>| {
            let last = part.ask(|machine, reply, deferred| machine.last_message_id(reply, clock::now(), deferred));
            (part, last)
        };
        self.answers = parts.into_iter().map(ask).collect();
    }

    /// The answers that have come. Who has none is asked again.
    fn poll_answers(&mut self, cx: &mut Context<'_>) -> Vec<(Arc<Part<Machine>>, LastMessageId)> {
        let mut answers = Vec::new();
        self.answers.retain_mut(|(part, answer)| match Pin::new(answer).poll(cx) {
            Poll::Ready(answer) => {
                answers.extend(answer.ok().map(|last| (part.clone(), last)));
                false
            }
            Poll::Pending => true,
        });
        answers
    }
}

impl Stream for MessagesUntil<'_> {
    type Item = Result<ReceivedMessage>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            match this.poll_message(cx) {
                Poll::Ready(Ok(message)) => {
                    this.asking.restart();
                    return Poll::Ready(Some(Ok(message)));
                }
                Poll::Ready(Err(error)) => {
                    this.settle();
                    if !std::mem::take(&mut this.ends).is_empty() {
                        this.error.get_or_insert(error);
                    }
                }
                Poll::Pending => this.settle(),
            }
            if this.ends.is_empty() {
                return Poll::Ready(this.error.take().map(Err));
            }
            if !this.poll_last_messages(cx) {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for MessagesUntil<'_> {
    /// What was not returned is the next to be read.
    fn drop(&mut self) {
        while let Some(found) = self.first.pop_back() {
            self.reader.found.push_front(found);
        }
        self.reader.consumer.release_parts();
    }
}

impl fmt::Debug for MessagesUntil<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessagesUntil")
            .field("reader", &self.reader)
            .field("open", &self.ends.len())
            .finish_non_exhaustive()
    }
}
