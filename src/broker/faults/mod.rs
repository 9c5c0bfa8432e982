//! Scripted faults on the frames between a client and the broker.
//!
//! A [`ScriptedFault`] names a [`FaultEvent`]: it skips some of them, then has its [`FaultEffect`] on the next ones. The
//! script belongs to the machine, so it works the same without sockets; on a running broker
//! [`Faults`](crate::broker::Faults) arms it.
//!
//! A fault drops, delays, duplicates or replaces frames, closes endpoints or connections, or damages stored entries. It
//! never changes what the broker decides, and its effect on a client is never reported as a violation of that client.

mod hostile;
mod script;

use std::time::Duration;

use bytes::Bytes;

pub(crate) use self::hostile::{HostileAct, Hostility};
pub(crate) use self::script::{DeferredFault, FaultScript};
use crate::error::ServerCode;
use crate::topic::TopicName;
use crate::wire::command::Command;
use crate::wire::frame::Frame;

/// A frame between a client and the broker on which a fault can take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultEvent {
    /// Any frame of a client.
    Any,
    /// CONNECT; its response is CONNECTED.
    Connect,
    /// AUTH_RESPONSE: fresh credentials. It has no response.
    AuthResponse,
    /// PING of a client; its response is PONG.
    Ping,
    /// PARTITIONED_METADATA.
    PartitionedMetadata,
    /// LOOKUP.
    Lookup,
    /// PRODUCER.
    Producer,
    /// SEND; its response is SEND_RECEIPT.
    Send,
    /// CLOSE_PRODUCER.
    CloseProducer,
    /// SUBSCRIBE.
    Subscribe,
    /// FLOW. It has no response.
    Flow,
    /// ACK. It has a response when it carries a request id.
    Ack,
    /// REDELIVER_UNACKNOWLEDGED_MESSAGES. It has no response.
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
    /// WATCH_TOPIC_LIST. Closing its watcher means that the broker forgets it, without notice.
    WatchTopicList,
    /// WATCH_TOPIC_LIST_CLOSE.
    WatchTopicListClose,
    /// GET_SCHEMA.
    GetSchema,
    /// GET_OR_CREATE_SCHEMA.
    GetOrCreateSchema,
    /// MESSAGE, which the broker starts. Of the effects, [`FaultEffect::DuplicateResponse`],
    /// [`FaultEffect::DelayResponse`], [`FaultEffect::Close`] and [`FaultEffect::Disconnect`] apply to it.
    Delivery,
    /// WATCH_TOPIC_UPDATE, which the broker starts: its topic is the one that was created or deleted. The update counts
    /// as the response; [`FaultEffect::RefuseRequest`] and [`FaultEffect::Redirect`] do not apply to it, and
    /// [`FaultEffect::Close`] makes the broker forget the watcher.
    TopicListUpdate,
}

impl FaultEvent {
    /// All of them.
    pub(crate) const ALL: [Self; 25] = [
        Self::Any,
        Self::Connect,
        Self::AuthResponse,
        Self::Ping,
        Self::PartitionedMetadata,
        Self::Lookup,
        Self::Producer,
        Self::Send,
        Self::CloseProducer,
        Self::Subscribe,
        Self::Flow,
        Self::Ack,
        Self::Redeliver,
        Self::Seek,
        Self::LastMessageId,
        Self::ConsumerStats,
        Self::Unsubscribe,
        Self::CloseConsumer,
        Self::GetTopicsOfNamespace,
        Self::WatchTopicList,
        Self::WatchTopicListClose,
        Self::GetSchema,
        Self::GetOrCreateSchema,
        Self::Delivery,
        Self::TopicListUpdate,
    ];

    /// The event of a frame of a client; `None` for those that only [`FaultEvent::Any`] covers.
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

/// What a fault does on an event. "The request" is the frame of the event. On the events that the broker starts
/// ([`FaultEvent::Delivery`], [`FaultEvent::TopicListUpdate`]) the frame that it sends counts as the response.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultEffect {
    /// The request gets this error and is not carried out. On CONNECT and AUTH_RESPONSE the connection ends with it.
    RefuseRequest {
        /// The code of the error: any number.
        code: ServerCode,
    },
    /// A LOOKUP gets the response Redirect. Other events are not changed.
    Redirect {
        /// `brokerServiceUrl` of the response.
        url: String,
        /// `authoritative` of the response.
        authoritative: bool,
    },
    /// The request is not carried out and gets no response.
    DropRequest,
    /// The request is not carried out; these bytes are sent instead of a response.
    RespondWith {
        /// Any bytes; they need not be a frame.
        bytes: Bytes,
    },
    /// The request is carried out; its response is not sent.
    DropResponse,
    /// The request is carried out; its response is sent later.
    DelayResponse {
        /// By how much.
        by: Duration,
    },
    /// The request is carried out; its response is sent twice. A MESSAGE is sent twice, and both cost permits.
    DuplicateResponse,
    /// The requests are carried out; their responses are held back until there are `count`, then sent in reverse order.
    ReverseResponses {
        /// How many responses are held back together.
        count: usize,
    },
    /// The request is carried out; then the producer or consumer of it is closed, as by a broker that moves its topic.
    Close {
        /// Where to go without a lookup (`assignedBrokerServiceUrl`).
        url: Option<String>,
    },
    /// The request is carried out; then the connection ends without a CLOSE, and what was not written yet is lost.
    Disconnect,
}

/// An effect, the kind of event it is for, and how many of those events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptedFault {
    event: FaultEvent,
    /// Full name of the one topic it is for.
    topic: Option<String>,
    /// How many events it still skips.
    after: u64,
    /// On how many events it still takes effect; `None` for all until cleared.
    times: Option<u64>,
    effect: FaultEffect,
}

impl ScriptedFault {
    /// A fault for the next event of this kind, once, on any topic.
    pub fn new(event: FaultEvent, effect: FaultEffect) -> Self {
        Self { event, topic: None, after: 0, times: Some(1), effect }
    }

    /// Only for events of this topic; it then has no effect on events that have no topic.
    #[must_use]
    pub fn on_topic(mut self, topic: &str) -> Self {
        let full = TopicName::parse(topic).map_or_else(|_| topic.to_owned(), |name| name.as_str().to_owned());
        self.topic = Some(full);
        self
    }

    /// Skips the first `events` events. Default: none.
    #[must_use]
    pub fn after(mut self, events: u64) -> Self {
        self.after = events;
        self
    }

    /// Takes effect on this many events in a row. Default: one.
    #[must_use]
    pub fn times(mut self, events: u64) -> Self {
        self.times = Some(events);
        self
    }

    /// Takes effect on all events, until the faults are cleared.
    #[must_use]
    pub fn always(mut self) -> Self {
        self.times = None;
        self
    }

    fn is_for(&self, event: Option<FaultEvent>, topic: Option<&str>) -> bool {
        let from_client = !matches!(event, Some(FaultEvent::Delivery | FaultEvent::TopicListUpdate));
        let any = self.event == FaultEvent::Any && from_client;
        let event = any || event == Some(self.event);
        event && self.topic.as_deref().is_none_or(|only| topic == Some(only))
    }
}
