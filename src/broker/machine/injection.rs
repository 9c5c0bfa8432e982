//! What the effects do to the machine.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::broker::commands::handshake::NO_REQUEST;
use crate::broker::connections::{Connections, ConsumerSlot, ProducerSlot, State};
use crate::broker::faults::{Effect, Event, Fault, Pending};
use crate::broker::machine::timers::Timer;
use crate::broker::machine::{Broker, ConnId};
use crate::broker::subscription::ConsumerKey;
use crate::broker::topics::topic::ProducerKey;
use crate::error::ServerCode;
use crate::pb::{self, command_lookup_topic_response::LookupType};
use crate::topic::TopicName;
use crate::wire::command::{Command, Refusal};
use crate::wire::entry::EntryParts;
use crate::wire::frame::{Frame, cut, frames};

const REFUSED: &str = "refused by a scripted fault";

/// A producer, consumer or topic list watcher of a connection.
#[derive(Debug, Clone, Copy)]
enum Guest {
    Producer(u64),
    Consumer(u64),
    Watcher(u64),
}

impl Broker {
    /// Arms a fault. At most 1,000 are armed at once; further ones are not.
    pub fn arm_fault(&mut self, fault: Fault) {
        self.conns.script.arm(fault);
    }

    /// Disarms all faults, lets go of the answers that are held back to be reversed, and serves connections that were
    /// frozen or no longer read. Answers that are delayed still go out at their time.
    pub fn clear_faults(&mut self) {
        self.conns.script.faults.clear();
        self.conns.script.received_bytes_left = None;
        self.conns.script.sent_bytes_left = None;
        for (conn, answer) in std::mem::take(&mut self.conns.script.held) {
            self.conns.raw(conn, &answer);
        }
        for conn in self.conns.ids() {
            if let Some(connection) = self.conns.get_mut(conn).filter(|found| found.deaf || found.mute) {
                connection.deaf = false;
                connection.mute = false;
                self.conns.list(conn);
            }
        }
    }

    /// Events that faults struck so far.
    pub fn faults_struck(&self) -> u64 {
        self.conns.script.struck
    }

    /// Ends the connection that brings the `bytes`-th byte from now on, which may be in the middle of a frame.
    pub fn cut_after_bytes_received(&mut self, bytes: usize) {
        self.conns.script.received_bytes_left = Some(bytes);
    }

    /// Ends the connection that the `bytes`-th byte from now on goes to, right behind that byte.
    pub fn cut_after_bytes_sent(&mut self, bytes: usize) {
        self.conns.script.sent_bytes_left = Some(bytes);
    }

    /// Puts bytes that need not be a frame between the frames of every connection.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        for conn in self.conns.ids() {
            self.conns.raw(conn, bytes);
        }
    }

    /// Connections there are now are no longer read from; with `mute`, nothing is written to them either.
    pub fn stop_reading(&mut self, mute: bool) {
        for conn in self.conns.ids() {
            if let Some(connection) = self.conns.get_mut(conn) {
                connection.deaf = true;
                connection.mute |= mute;
            }
        }
    }

    /// Whether the driver of this connection leaves what its peer sends unread.
    pub fn is_deaf(&self, conn: ConnId) -> bool {
        self.conns.get(conn).is_some_and(|connection| connection.deaf)
    }

    /// Asks every connection for fresh credentials, whether or not they have expired.
    pub fn challenge_all(&mut self) {
        for conn in self.conns.ids() {
            self.challenge(conn);
        }
    }

    /// Closes the producers of a topic, or its consumers, or both, as a broker that moves it.
    pub fn close_guests(&mut self, topic: &str, producers: bool, consumers: bool, url: Option<&str>) {
        let Ok(name) = TopicName::parse(topic) else { return };
        let Some(found) = self.topics.get(name.as_str()) else { return };
        let topic: Arc<str> = Arc::from(name.as_str());
        let senders: Vec<ProducerKey> = found.producers.keys().copied().collect();
        let readers: Vec<ConsumerKey> =
            found.subscriptions.values().flat_map(|sub| sub.consumers.iter().map(|one| one.key)).collect();
        for key in senders.into_iter().filter(|_| producers) {
            self.close_producer(&topic, key, url);
        }
        for key in readers.into_iter().filter(|_| consumers) {
            self.evict(key, url);
        }
    }

    /// Forgets every topic list watcher without a word: its client gets no further update. The protocol has no command
    /// by which a broker ends a watcher.
    pub fn drop_topic_list_watchers(&mut self) {
        for (_, connection) in self.conns.iter_mut() {
            connection.watchers.clear();
        }
    }

    /// Sends a WATCH_TOPIC_UPDATE, with the effect that a fault has on it.
    pub(crate) fn send_topic_list_update(
        &mut self,
        conn: ConnId,
        name: &TopicName,
        update: pb::CommandWatchTopicUpdate,
    ) {
        let effect = self.conns.script.strike(Some(Event::TopicListUpdate), Some(name.as_str()));
        let (mark, watcher) = (self.conns.mark(conn), Guest::Watcher(update.watcher_id));
        self.conns.send(conn, &update.into());
        match effect {
            None | Some(Effect::Refuse(_) | Effect::Redirect { .. }) => {}
            Some(Effect::Close { url }) => self.close_guest(conn, Some(watcher), url.as_deref()),
            Some(Effect::Cut) => self.conns.cut(conn),
            Some(Effect::AnswerWith(bytes)) => {
                self.conns.take_answers(conn, mark);
                self.conns.raw(conn, &bytes);
            }
            Some(
                effect
                @ (Effect::Ignore | Effect::Withhold | Effect::Delay(_) | Effect::Duplicate | Effect::Reverse(_)),
            ) => {
                let answers = self.conns.take_answers(conn, mark);
                self.pass_answers(conn, answers, &effect);
            }
        }
    }

    /// Makes this broker the owner of a topic's namespace and counts the topic as looked up: another broker sends its
    /// clients here.
    pub fn adopt_topic(&mut self, topic: &str) {
        if let Ok(name) = TopicName::parse(topic) {
            self.owned.insert(name.namespace().to_owned());
            self.looked_up.insert(Arc::from(name.as_str()));
        }
    }

    /// Flips the last bit of a stored entry, so that its checksum no longer fits. `entry` counts from the first entry
    /// ever stored. False if there is no such entry.
    pub fn corrupt_entry(&mut self, topic: &str, entry: u64) -> bool {
        self.damage(topic, entry, |bytes| {
            if let Some(last) = bytes.last_mut() {
                *last ^= 1;
            }
        })
    }

    /// Overwrites the payload of a stored entry so that it is no batch and no compressed data any more, and gives it
    /// a checksum that fits. False if there is no such entry.
    pub fn corrupt_payload(&mut self, topic: &str, entry: u64) -> bool {
        self.damage(topic, entry, |bytes| {
            let Ok(parts) = EntryParts::split(bytes) else { return };
            if let Some(payload) = bytes.get_mut(parts.payload) {
                payload.fill(0xff);
            }
            let sum = bytes.get(parts.checksummed_from..).map(crc32c::crc32c);
            let place = parts.checksummed_from.checked_sub(4).filter(|_| parts.checksum.is_some());
            if let (Some(place), Some(sum)) = (place, sum) {
                if let Some(bytes) = bytes.get_mut(place..place + 4) {
                    bytes.copy_from_slice(&sum.to_be_bytes());
                }
            }
        })
    }

    fn damage(&mut self, topic: &str, entry: u64, what: impl FnOnce(&mut [u8])) -> bool {
        let Ok(name) = TopicName::parse(topic) else { return false };
        let Some(stored) = self.topics.get_mut(name.as_str()).and_then(|found| found.log.get_mut(entry)) else {
            return false;
        };
        let mut bytes = BytesMut::from(&stored.bytes[..]);
        what(&mut bytes);
        stored.bytes = bytes.freeze();
        true
    }

    /// The effect on a frame that came, if there is one.
    pub(crate) fn strike(&mut self, conn: ConnId, frame: &Frame) -> Option<Effect> {
        if self.conns.script.is_idle() {
            return None;
        }
        let topic = self.topic_of(conn, frame);
        self.conns.script.strike(Event::of(frame), topic.as_deref())
    }

    /// Serves a frame that a fault struck.
    pub(crate) fn serve_struck(&mut self, conn: ConnId, frame: Frame, effect: Effect) {
        match effect {
            Effect::Ignore => {}
            Effect::AnswerWith(bytes) => self.conns.raw(conn, &bytes),
            Effect::Refuse(code) => self.refuse(conn, &frame, code),
            Effect::Redirect { url, authoritative } => match frame {
                Frame::Other(Command::Lookup(request)) => {
                    let answer = pb::CommandLookupTopicResponse {
                        broker_service_url: Some(url),
                        response: Some(LookupType::Redirect.into()),
                        request_id: request.request_id,
                        authoritative: Some(authoritative),
                        ..Default::default()
                    };
                    self.conns.send(conn, &answer.into());
                }
                other => self.serve(conn, other),
            },
            Effect::Withhold | Effect::Delay(_) | Effect::Duplicate | Effect::Reverse(_) => {
                let mark = self.conns.mark(conn);
                self.serve(conn, frame);
                let answers = self.conns.take_answers(conn, mark);
                self.pass_answers(conn, answers, &effect);
            }
            Effect::Close { url } => {
                let guest = guest_of(&frame);
                self.serve(conn, frame);
                self.close_guest(conn, guest, url.as_deref());
            }
            Effect::Cut => {
                self.serve(conn, frame);
                self.conns.cut(conn);
            }
        }
    }

    fn pass_answers(&mut self, conn: ConnId, answers: Bytes, effect: &Effect) {
        if answers.is_empty() {
            return;
        }
        match effect {
            Effect::Delay(after) => self.send_late(conn, answers, *after),
            Effect::Duplicate => {
                self.conns.raw(conn, &answers);
                self.conns.raw(conn, &answers);
            }
            Effect::Reverse(count) => {
                for (conn, answer) in self.conns.script.hold(conn, answers, *count) {
                    self.conns.raw(conn, &answer);
                }
            }
            _ => {}
        }
    }

    fn send_late(&mut self, conn: ConnId, bytes: Bytes, after: Duration) {
        if let Some(at) = self.now.at.checked_add(after) {
            self.timers.set(at, Timer::Late { conn, bytes });
        }
    }

    /// Carries out what deliveries have set off.
    pub(crate) fn settle_faults(&mut self) {
        while let Some(pending) = self.conns.script.pending.pop_front() {
            match pending {
                Pending::Late { conn, bytes, after } => self.send_late(conn, bytes, after),
                Pending::CloseConsumer { conn, id, url } => self.evict(ConsumerKey { conn, id }, url.as_deref()),
                Pending::Cut { conn } => self.conns.cut(conn),
            }
        }
    }

    /// As many of the bytes that came as a byte count leaves; true when the connection is to end behind them.
    pub(crate) fn limit_received(&mut self, rx: &mut BytesMut) -> bool {
        match self.conns.script.received_bytes_left {
            Some(left) if rx.len() >= left => {
                rx.truncate(left);
                self.conns.script.received_bytes_left = None;
                self.conns.script.struck += 1;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn count_received(&mut self, bytes: usize) {
        if let Some(left) = &mut self.conns.script.received_bytes_left {
            *left = left.saturating_sub(bytes);
        }
    }

    /// As much of the output as a byte count leaves; the connection ends behind it.
    pub(crate) fn limit_sent(&mut self, conn: ConnId, out: &mut Bytes) {
        match &mut self.conns.script.sent_bytes_left {
            Some(left) if out.len() >= *left => {
                out.truncate(*left);
                self.conns.script.sent_bytes_left = None;
                self.conns.script.struck += 1;
                self.conns.cut(conn);
            }
            Some(left) => *left -= out.len(),
            None => {}
        }
    }

    fn close_guest(&mut self, conn: ConnId, guest: Option<Guest>, url: Option<&str>) {
        match guest {
            Some(Guest::Producer(id)) => {
                let slot = self.conns.get(conn).and_then(|connection| connection.producers.get(&id));
                if let Some(ProducerSlot::Live { topic, .. }) = slot {
                    let topic = Arc::clone(topic);
                    self.close_producer(&topic, ProducerKey { conn, id }, url);
                }
            }
            Some(Guest::Consumer(id)) => self.evict(ConsumerKey { conn, id }, url),
            Some(Guest::Watcher(id)) => {
                if let Some(connection) = self.conns.get_mut(conn) {
                    connection.watchers.remove(&id);
                }
            }
            None => {}
        }
    }

    /// Takes a consumer off its subscription and tells it so.
    fn evict(&mut self, key: ConsumerKey, url: Option<&str>) {
        let slot = self.conns.get(key.conn).and_then(|connection| connection.consumers.get(&key.id));
        let Some((topic, subscription)) = slot.and_then(ConsumerSlot::subscription) else { return };
        self.close_consumer(key, url);
        self.remove_consumer(&topic, &subscription, key);
    }

    fn refuse(&mut self, conn: ConnId, frame: &Frame, code: ServerCode) {
        let error = code.0;
        let command = match frame {
            Frame::Send { head, .. } => {
                let sequence_id = head.highest_sequence_id.map_or(head.sequence_id, |high| high.max(head.sequence_id));
                let message = REFUSED.to_owned();
                return self.conns.send(
                    conn,
                    &pb::CommandSendError { producer_id: head.producer_id, sequence_id, error, message }.into(),
                );
            }
            Frame::Other(command) => command,
            _ => return,
        };
        if let Command::Connect(_) | Command::AuthResponse(_) = command {
            let message = REFUSED.to_owned();
            self.conns.send(conn, &pb::CommandError { request_id: NO_REQUEST, error, message }.into());
            return self.conns.close(conn);
        }
        let refusal = Refusal { code: error, message: REFUSED.to_owned() };
        let Some(answer) = command.refused(&refusal) else { return };
        self.conns.send(conn, &answer);
    }

    fn topic_of(&self, conn: ConnId, frame: &Frame) -> Option<Arc<str>> {
        if let Frame::Other(command) = frame {
            let named = match command {
                Command::PartitionedMetadata(request) => Some(&request.topic),
                Command::Lookup(request) => Some(&request.topic),
                Command::Producer(request) => Some(&request.topic),
                Command::Subscribe(request) => Some(&request.topic),
                _ => None,
            };
            if let Some(named) = named {
                return TopicName::parse(named).ok().map(|name| Arc::from(name.as_str()));
            }
        }
        let connection = self.conns.get(conn)?;
        match guest_of(frame)? {
            Guest::Producer(id) => match connection.producers.get(&id)? {
                ProducerSlot::Live { topic, .. } | ProducerSlot::Waiting { topic } => Some(Arc::clone(topic)),
                _ => None,
            },
            Guest::Consumer(id) => connection.consumers.get(&id)?.subscription().map(|(topic, _)| topic),
            Guest::Watcher(_) => None,
        }
    }
}

fn guest_of(frame: &Frame) -> Option<Guest> {
    Some(match frame {
        Frame::Send { head, .. } => Guest::Producer(head.producer_id),
        Frame::Other(command) => match command {
            Command::Producer(request) => Guest::Producer(request.producer_id),
            Command::CloseProducer(request) => Guest::Producer(request.producer_id),
            Command::Subscribe(request) => Guest::Consumer(request.consumer_id),
            Command::CloseConsumer(request) => Guest::Consumer(request.consumer_id),
            Command::Unsubscribe(request) => Guest::Consumer(request.consumer_id),
            Command::Flow(request) => Guest::Consumer(request.consumer_id),
            Command::Ack(request) => Guest::Consumer(request.consumer_id),
            Command::RedeliverUnacknowledgedMessages(request) => Guest::Consumer(request.consumer_id),
            Command::Seek(request) => Guest::Consumer(request.consumer_id),
            Command::GetLastMessageId(request) => Guest::Consumer(request.consumer_id),
            Command::ConsumerStats(request) => Guest::Consumer(request.consumer_id),
            Command::WatchTopicList(request) => Guest::Watcher(request.watcher_id),
            Command::WatchTopicListClose(request) => Guest::Watcher(request.watcher_id),
            _ => return None,
        },
        _ => return None,
    })
}

impl Connections {
    /// The effect on a MESSAGE for this consumer, if there is one.
    pub(crate) fn strike_delivery(&mut self, conn: ConnId, consumer_id: u64) -> Option<Effect> {
        if self.script.is_idle() {
            return None;
        }
        let slot = self.get(conn).and_then(|connection| connection.consumers.get(&consumer_id));
        let topic = slot.and_then(ConsumerSlot::subscription).map(|(topic, _)| topic);
        self.script.strike(Some(Event::Delivery), topic.as_deref())
    }

    /// Does to the MESSAGE that begins at `mark` what a fault wants; gives how often it goes out.
    pub(crate) fn finish_delivery(&mut self, conn: ConnId, consumer_id: u64, mark: usize, effect: Effect) -> u32 {
        let Some(connection) = self.get_mut(conn) else { return 1 };
        match effect {
            Effect::Duplicate => {
                let message = Bytes::copy_from_slice(connection.out.get(mark..).unwrap_or_default());
                connection.out.extend_from_slice(&message);
                return 2;
            }
            Effect::Delay(after) => {
                let bytes = connection.out.split_off(mark.min(connection.out.len())).freeze();
                self.script.pending.push_back(Pending::Late { conn, bytes, after });
            }
            Effect::Close { url } => {
                self.script.pending.push_back(Pending::CloseConsumer { conn, id: consumer_id, url });
            }
            Effect::Cut => self.script.pending.push_back(Pending::Cut { conn }),
            _ => {}
        }
        1
    }

    /// Appends bytes that need not be a frame.
    pub(crate) fn raw(&mut self, conn: ConnId, bytes: &[u8]) {
        if let Some(out) = self.out(conn) {
            out.extend_from_slice(bytes);
        }
    }

    /// How much is queued now.
    pub(crate) fn mark(&self, conn: ConnId) -> usize {
        self.get(conn).map_or(0, |connection| connection.out.len())
    }

    /// Takes what was queued since `mark`, MESSAGEs excepted: those answer nothing.
    fn take_answers(&mut self, conn: ConnId, mark: usize) -> Bytes {
        let Some(connection) = self.get_mut(conn).filter(|found| found.out.len() > mark) else { return Bytes::new() };
        let mut since = connection.out.split_off(mark);
        let mut answers = BytesMut::new();
        let limits = crate::wire::frame::Limits::for_message_size(u32::MAX >> 1);
        while !since.is_empty() {
            let Some(size) = since.first_chunk::<4>().map(|size| u32::from_be_bytes(*size) as usize) else { break };
            let mut one = since.split_to(size.saturating_add(4).min(since.len()));
            let bytes = one.clone();
            let frame = cut(&mut one, &limits).ok().flatten().and_then(|run| frames(run).next());
            let into =
                if matches!(frame, Some(Ok(Frame::Message { .. }))) { &mut connection.out } else { &mut answers };
            into.extend_from_slice(&bytes);
        }
        answers.freeze()
    }

    /// Ends the connection now; what is queued is lost.
    pub(crate) fn cut(&mut self, conn: ConnId) {
        self.list(conn);
        if let Some(connection) = self.get_mut(conn) {
            connection.out.clear();
            connection.state = State::Closing;
        }
    }
}
