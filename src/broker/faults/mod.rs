//! Scripted faults on what passes between a client and the broker.
//!
//! A [`ScriptedFault`] names a [`FaultEvent`]: it lets some of them pass, then has its [`FaultEffect`] on the next
//! ones. The script belongs to the machine, so it works the same without sockets; on a running broker
//! [`Faults`](crate::broker::Faults) arms it.
//!
//! A fault loses, holds back, repeats or forges what passes, closes what is open, or damages what is stored. It never
//! changes what the broker decides, and what it does to a client is never reported as a violation of that client.

mod script;

use std::time::Duration;

use bytes::Bytes;

pub(crate) use self::script::{FaultScript, PendingFault};
use crate::error::ServerCode;
use crate::topic::TopicName;
use crate::wire::command::Command;
use crate::wire::frame::Frame;

/// Something that passes between a client and the broker, on which a fault can take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultEvent {
    /// Any frame of a client.
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
    /// WATCH_TOPIC_LIST. Closing its watcher means that the broker forgets it, without notice.
    WatchTopicList,
    /// WATCH_TOPIC_LIST_CLOSE.
    WatchTopicListClose,
    /// GET_SCHEMA.
    GetSchema,
    /// GET_OR_CREATE_SCHEMA.
    GetOrCreateSchema,
    /// MESSAGE, which the broker begins. Of the effects, Duplicate, Delay, Close and Cut apply to it.
    Delivery,
    /// WATCH_TOPIC_UPDATE, which the broker begins: its topic is the one that was made or deleted. The update counts as
    /// the answer; Refuse and Redirect do not apply to it, and Close makes the broker forget the watcher.
    TopicListUpdate,
}

impl FaultEvent {
    /// What a frame of a client is; `None` for those that only [`FaultEvent::Any`] covers.
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

/// What a fault does to an event. "It" is the request, or the frame that the broker pushes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultEffect {
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
    /// They are carried out; once so many answers are held back, they go out in reverse order.
    Reverse(usize),
    /// It is carried out; then the producer or consumer it is of is closed, as by a broker that moves its topic.
    Close {
        /// Where to go without a lookup (`assignedBrokerServiceUrl`).
        url: Option<String>,
    },
    /// It is carried out; then the connection ends without a CLOSE, and what was not written yet is lost.
    Cut,
}

/// An effect, the kind of event it is for, and how many of those events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptedFault {
    event: FaultEvent,
    /// Full name of the one topic it is for.
    topic: Option<String>,
    /// How many still pass.
    after: u64,
    /// On how many it still takes effect; `None` for all until cleared.
    times: Option<u64>,
    effect: FaultEffect,
}

impl ScriptedFault {
    /// A fault for the next event of this kind, once, on any topic.
    pub fn new(event: FaultEvent, effect: FaultEffect) -> Self {
        Self { event, topic: None, after: 0, times: Some(1), effect }
    }

    /// Only for events of this topic; it has no effect then on events that have no topic.
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

    /// Takes effect on so many in a row; `None` for all until cleared. Default: one.
    #[must_use]
    pub fn times(mut self, times: Option<u64>) -> Self {
        self.times = times;
        self
    }

    fn is_for(&self, event: Option<FaultEvent>, topic: Option<&str>) -> bool {
        let from_client = !matches!(event, Some(FaultEvent::Delivery | FaultEvent::TopicListUpdate));
        let any = self.event == FaultEvent::Any && from_client;
        let event = any || event == Some(self.event);
        event && self.topic.as_deref().is_none_or(|only| topic == Some(only))
    }
}
