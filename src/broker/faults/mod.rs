//! Faults by script, at the border between a client and the broker.
//!
//! A [`Fault`] is tied to an [`Event`]: it lets some of them pass, then does its [`Effect`] on the next ones, one or
//! many. [`Faults`] is the handle with a verb for each effect; below it the script is part of the machine, so it works
//! the same without sockets. What a fault does to a client is never held against that client by the judge.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use pulsar_native::broker::{EmbeddedBroker, Event};
//! use pulsar_native::{Client, ServerCode};
//!
//! let broker = EmbeddedBroker::builder().start().await?;
//! let client = Client::builder(broker.url()).connect().await?;
//! // The first two attempts to open a producer are refused, and the first receipt is lost with its connection.
//! broker.faults().on(Event::Producer).next(2).refuse(ServerCode::SERVICE_NOT_READY);
//! broker.faults().on(Event::Send).cut();
//!
//! let producer = client.producer("orders").create().await?;
//! producer.send("sent twice, and the application does not see it").await?;
//! assert_eq!(broker.faults().struck(), 3);
//! # Ok(())
//! # }
//! ```
//!
//! Never here: a change of what the broker decides. A fault loses, holds back, repeats or forges what passes the
//! border, closes what is open, or damages what is stored.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::broker::machine::ConnId;
use crate::error::ServerCode;
use crate::topic::TopicName;
use crate::wire::command::Command;
use crate::wire::frame::Frame;

/// Faults armed at once; one more is not armed.
const FAULTS_MAX: usize = 1_000;

/// Something that passes the border between a client and the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Event {
    /// Any frame of a client, whatever it is.
    Any,
    /// CONNECT; its answer is CONNECTED.
    Connect,
    /// AUTH_RESPONSE: fresh credentials. It has no answer.
    AuthResponse,
    /// PING of a client; its answer is PONG.
    Ping,
    /// PARTITIONED_METADATA.
    PartitionedMetadata,
    /// LOOKUP.
    Lookup,
    /// PRODUCER.
    Producer,
    /// SEND; its answer is SEND_RECEIPT.
    Send,
    /// CLOSE_PRODUCER.
    CloseProducer,
    /// SUBSCRIBE.
    Subscribe,
    /// FLOW. It has no answer.
    Flow,
    /// ACK. It has an answer when it carries a request id.
    Ack,
    /// REDELIVER_UNACKNOWLEDGED_MESSAGES. It has no answer.
    Redeliver,
    /// SEEK.
    Seek,
    /// GET_LAST_MESSAGE_ID.
    LastMessageId,
    /// CONSUMER_STATS.
    ConsumerStats,
    /// UNSUBSCRIBE.
    Unsubscribe,
    /// CLOSE_CONSUMER.
    CloseConsumer,
    /// GET_TOPICS_OF_NAMESPACE.
    GetTopicsOfNamespace,
    /// WATCH_TOPIC_LIST. Closing its watcher means that the broker forgets it without a word.
    WatchTopicList,
    /// WATCH_TOPIC_LIST_CLOSE.
    WatchTopicListClose,
    /// GET_SCHEMA.
    GetSchema,
    /// GET_OR_CREATE_SCHEMA.
    GetOrCreateSchema,
    /// MESSAGE, which the broker begins. Of the effects, Duplicate, Delay, Close and Cut apply to it.
    Delivery,
    /// WATCH_TOPIC_UPDATE, which the broker begins: its topic is the one that came or went. The update counts as the
    /// answer; Refuse and Redirect do not apply to it, and Close makes the broker forget the watcher.
    TopicListUpdate,
}

impl Event {
    /// What a frame of a client is; `None` for those that only [`Event::Any`] covers.
    pub(crate) fn of(frame: &Frame) -> Option<Self> {
        Some(match frame {
            Frame::Send { .. } => Self::Send,
            Frame::Other(command) => match command {
                Command::Connect(_) => Self::Connect,
                Command::AuthResponse(_) => Self::AuthResponse,
                Command::Ping(_) => Self::Ping,
                Command::PartitionedMetadata(_) => Self::PartitionedMetadata,
                Command::Lookup(_) => Self::Lookup,
                Command::Producer(_) => Self::Producer,
                Command::CloseProducer(_) => Self::CloseProducer,
                Command::Subscribe(_) => Self::Subscribe,
                Command::Flow(_) => Self::Flow,
                Command::Ack(_) => Self::Ack,
                Command::RedeliverUnacknowledgedMessages(_) => Self::Redeliver,
                Command::Seek(_) => Self::Seek,
                Command::GetLastMessageId(_) => Self::LastMessageId,
                Command::ConsumerStats(_) => Self::ConsumerStats,
                Command::Unsubscribe(_) => Self::Unsubscribe,
                Command::CloseConsumer(_) => Self::CloseConsumer,
                Command::GetTopicsOfNamespace(_) => Self::GetTopicsOfNamespace,
                Command::WatchTopicList(_) => Self::WatchTopicList,
                Command::WatchTopicListClose(_) => Self::WatchTopicListClose,
                Command::GetSchema(_) => Self::GetSchema,
                Command::GetOrCreateSchema(_) => Self::GetOrCreateSchema,
                _ => return None,
            },
            _ => return None,
        })
    }
}

/// What a fault does to an event.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// It is answered with this error code and not carried out. On CONNECT and AUTH_RESPONSE the connection ends with
    /// it.
    Refuse(ServerCode),
    /// A LOOKUP is answered with Redirect. Other events are not changed.
    Redirect {
        /// `brokerServiceUrl` of the answer.
        url: String,
        /// `authoritative` of the answer.
        authoritative: bool,
    },
    /// It is not carried out and gets no answer.
    Ignore,
    /// It is not carried out; these bytes go out instead of an answer.
    AnswerWith(Bytes),
    /// It is carried out; its answer never goes out.
    Withhold,
    /// It is carried out; its answer goes out so much later.
    Delay(Duration),
    /// It is carried out; its answer goes out twice. A MESSAGE goes out twice, and both cost permits.
    Duplicate,
    /// They are carried out; once so many answers are held back, they go out last first.
    Reverse(usize),
    /// It is carried out; then the producer or consumer it is of is closed, as by a broker that moves its topic.
    Close {
        /// Where to go without a lookup (`assignedBrokerServiceUrl`).
        url: Option<String>,
    },
    /// It is carried out; then the connection ends without a word, and with it what had not gone out yet.
    Cut,
}

/// An effect, on which event, and on which ones of those.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    event: Event,
    /// Full name of the one topic it is for.
    topic: Option<String>,
    /// How many still pass.
    after: u64,
    /// How many it still strikes; `None` for all until cleared.
    pub(crate) times: Option<u64>,
    pub(crate) effect: Effect,
}

impl Fault {
    /// A fault for the next event of this kind, once, on any topic.
    pub fn new(event: Event, effect: Effect) -> Self {
        Self { event, topic: None, after: 0, times: Some(1), effect }
    }

    /// Only for events of this topic; events that have no topic are not struck then.
    #[must_use]
    pub fn of(mut self, topic: &str) -> Self {
        let full = TopicName::parse(topic).map_or_else(|_| topic.to_owned(), |name| name.as_str().to_owned());
        self.topic = Some(full);
        self
    }

    /// Lets so many pass first.
    #[must_use]
    pub fn after(mut self, events: u64) -> Self {
        self.after = events;
        self
    }

    /// Strikes so many in a row; `None` for all until cleared. Default: one.
    #[must_use]
    pub fn times(mut self, times: Option<u64>) -> Self {
        self.times = times;
        self
    }

    fn is_for(&self, event: Option<Event>, topic: Option<&str>) -> bool {
        let from_client = !matches!(event, Some(Event::Delivery | Event::TopicListUpdate));
        let any = self.event == Event::Any && from_client;
        let event = any || event == Some(self.event);
        event && self.topic.as_deref().is_none_or(|only| topic == Some(only))
    }
}

/// The armed faults, and what they hold back.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) faults: Vec<Fault>,
    pub(crate) struck: u64,
    /// Bytes that clients may still send, together, before the connection that brings the last one is cut.
    pub(crate) received_bytes_left: Option<usize>,
    /// The same for bytes that the broker sends.
    pub(crate) sent_bytes_left: Option<usize>,
    /// Answers that go out last first.
    pub(crate) held: Vec<(ConnId, Bytes)>,
    /// What deliveries have set off; it is carried out after the input that made them.
    pub(crate) pending: VecDeque<Pending>,
}

/// See [`Script::pending`].
#[derive(Debug)]
pub(crate) enum Pending {
    Late { conn: ConnId, bytes: Bytes, after: Duration },
    CloseConsumer { conn: ConnId, id: u64, url: Option<String> },
    Cut { conn: ConnId },
}

impl Script {
    /// Whether there is nothing to look for: the one question on the way of each frame.
    pub(crate) fn is_idle(&self) -> bool {
        self.faults.is_empty()
    }

    /// The effect on this event, if a fault strikes: the one that was armed first.
    pub(crate) fn strike(&mut self, event: Option<Event>, topic: Option<&str>) -> Option<Effect> {
        for at in 0..self.faults.len() {
            let Some(fault) = self.faults.get_mut(at).filter(|fault| fault.is_for(event, topic)) else { continue };
            if fault.after > 0 {
                fault.after -= 1;
                continue;
            }
            let effect = fault.effect.clone();
            match &mut fault.times {
                None => {}
                Some(left) if *left > 1 => *left -= 1,
                Some(_) => drop(self.faults.remove(at)),
            }
            self.struck += 1;
            return Some(effect);
        }
        None
    }

    pub(crate) fn arm(&mut self, fault: Fault) {
        if self.faults.len() < FAULTS_MAX && fault.times != Some(0) {
            self.faults.push(fault);
        }
    }

    /// Holds an answer back; all of them in their new order once there are enough.
    pub(crate) fn hold(&mut self, conn: ConnId, answer: Bytes, count: usize) -> Vec<(ConnId, Bytes)> {
        self.held.push((conn, answer));
        if self.held.len() < count { Vec::new() } else { self.held.drain(..).rev().collect() }
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script")
            .field("faults", &self.faults.len())
            .field("struck", &self.struck)
            .finish_non_exhaustive()
    }
}
