//! Every command as one enum, made from one table.
//!
//! In `PulsarApi.proto` the number of a `BaseCommand.Type` is the field number of its body. So decoding
//! takes the type and that one body and never builds a `BaseCommand` of sixty options: no caller has to
//! handle a type without a body, and a `match` is exhaustive.

use std::borrow::Cow;

use bytes::BytesMut;
use prost::Message as _;

use super::error::{DecodeError, DecodeErrorKind};
use super::hot::{envelope_len, put_envelope};
use super::proto::{Reader, varint_len};
use super::required::{self, Shape};
use crate::pb;
use crate::pb::base_command::Type;
use crate::pb::command_lookup_topic_response::LookupType;
use crate::pb::command_partitioned_topic_metadata_response::LookupType as MetadataType;

/// Which side of a connection may send a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sender {
    /// The side that sent CONNECT. A broker that talks to another broker is a client there.
    Client,
    /// The side that answered CONNECTED.
    Broker,
    /// Either.
    Both,
}

/// The parts of a `BaseCommand`: its type and the bytes of the body of that type.
#[derive(Debug)]
pub(crate) struct Envelope<'a> {
    pub(crate) command_type: i32,
    /// `None` when the field with the number of the type is absent.
    pub(crate) body: Option<Cow<'a, [u8]>>,
    /// The offset of the body, counted from the same start as the `base` given to [`split_envelope`].
    pub(crate) body_at: usize,
}

/// The type and body of a command in the usual layout of a short body of a low type, which the hot
/// commands have: the type, then the body with a one-byte tag and length. `None` for any other layout: use
/// [`split_envelope`].
#[inline]
pub(crate) fn split_envelope_fast(command: &[u8]) -> Option<(i32, &[u8])> {
    match command {
        [0x08, kind @ 2..=15, tag, length @ 0..=0x7f, body @ ..]
            if *tag == (kind << 3 | 2) && usize::from(*length) == body.len() =>
        {
            Some((i32::from(*kind), body))
        }
        _ => None,
    }
}

/// Decodes `BaseCommand.type` and finds its body. Bodies of other types are ignored.
pub(crate) fn split_envelope(command: &[u8], base: usize) -> Result<Envelope<'_>, DecodeError> {
    let mut reader = Reader::new(command, base);
    let (mut command_type, mut lengths, mut first) = (None, 0, None);
    while let Some((number, value, at)) = reader.next_at("BaseCommand")? {
        if number == 1 {
            // Protobuf truncates an enum to its low 32 bits, and the last one counts.
            command_type = Some(value.uint("BaseCommand.type", at)? as i32);
        } else {
            lengths += 1;
            first = first.or(Some((number, value, at)));
        }
    }
    let Some(command_type) = command_type else {
        return Err(DecodeError::new(DecodeErrorKind::Missing, "BaseCommand.type", base));
    };
    let none = Envelope { command_type, body: None, body_at: base };
    match first {
        None => Ok(none),
        Some((number, value, at)) if lengths == 1 => {
            if i64::from(number) != i64::from(command_type) {
                return Ok(none);
            }
            let range = value.range(body_field(command_type), at)?;
            Ok(Envelope { command_type, body_at: base + range.start, body: Some(Cow::Borrowed(&command[range])) })
        }
        Some(_) => split_envelope_slow(command, base, command_type),
    }
}

/// [`split_envelope`] for a command with more fields than the type and one body. A body in several pieces
/// is their concatenation, as protobuf defines it.
#[cold]
fn split_envelope_slow(command: &[u8], base: usize, command_type: i32) -> Result<Envelope<'_>, DecodeError> {
    let mut envelope = Envelope { command_type, body: None, body_at: base };
    let mut reader = Reader::new(command, base);
    while let Some((number, value, at)) = reader.next_at("BaseCommand")? {
        if number == 1 || i64::from(number) != i64::from(command_type) {
            continue;
        }
        let range = value.range(body_field(command_type), at)?;
        let piece = &command[range.clone()];
        envelope.body = Some(match envelope.body {
            None => {
                envelope.body_at = base + range.start;
                Cow::Borrowed(piece)
            }
            Some(body) => Cow::Owned([&body, piece].concat()),
        });
    }
    Ok(envelope)
}

macro_rules! request_id {
    (required $body:ident) => {
        Some($body.request_id)
    };
    (optional $body:ident) => {
        $body.request_id
    };
    (none $body:ident) => {{
        let _ = $body;
        None
    }};
}

macro_rules! set_request_id {
    (required $body:ident $id:ident) => {
        $body.request_id = $id
    };
    (optional $body:ident $id:ident) => {
        $body.request_id = Some($id)
    };
    (none $body:ident $id:ident) => {{
        let _ = ($body, $id);
    }};
}

/// The type of the response to a request; `_` where there is none.
macro_rules! response_type {
    (_) => {
        None
    };
    ($response:ident) => {
        Some(Type::$response)
    };
}

/// Reads the refusal out of a response, by the kind of fields that carry it.
macro_rules! refusal {
    (none $body:ident) => {{
        let _ = $body;
        None
    }};
    (itself $body:ident) => {
        Some(Refusal { code: $body.error, message: $body.message.clone() })
    };
    (error $body:ident) => {
        $body.error.map(|code| Refusal::new(code, $body.message.as_deref()))
    };
    (code $body:ident) => {
        $body.error_code.map(|code| Refusal::new(code, $body.error_message.as_deref()))
    };
    // These two have a field that says whether they refuse. A response without it, or with an unknown value, has no
    // usable result: it counts as a refusal, with UnknownError if there is no code.
    (lookup $body:ident) => {{
        let found = [Some(LookupType::Connect as i32), Some(LookupType::Redirect as i32)];
        let refused = !found.contains(&$body.response);
        refused.then(|| Refusal::new($body.error.unwrap_or(0), $body.message.as_deref()))
    }};
    (partitions $body:ident) => {{
        let refused = $body.response != Some(MetadataType::Success as i32);
        refused.then(|| Refusal::new($body.error.unwrap_or(0), $body.message.as_deref()))
    }};
}

/// The reverse of [`refusal`]: a response that refuses, or `None` where ERROR has to.
macro_rules! refusing {
    (none $variant:ident $body:ident $refusal:ident) => {
        None
    };
    (itself $variant:ident $body:ident $refusal:ident) => {
        None
    };
    (error $variant:ident $body:ident $refusal:ident) => {
        Some(Self::$variant(pb::$body {
            error: Some($refusal.code),
            message: Some($refusal.message.clone()),
            ..Default::default()
        }))
    };
    (code $variant:ident $body:ident $refusal:ident) => {
        Some(Self::$variant(pb::$body {
            error_code: Some($refusal.code),
            error_message: Some($refusal.message.clone()),
            ..Default::default()
        }))
    };
    (lookup $variant:ident $body:ident $refusal:ident) => {
        Some(Self::$variant(pb::$body {
            response: Some(LookupType::Failed as i32),
            error: Some($refusal.code),
            message: Some($refusal.message.clone()),
            ..Default::default()
        }))
    };
    (partitions $variant:ident $body:ident $refusal:ident) => {
        Some(Self::$variant(pb::$body {
            response: Some(MetadataType::Failed as i32),
            error: Some($refusal.code),
            message: Some($refusal.message.clone()),
            ..Default::default()
        }))
    };
}

/// Why the other side refused a request: a `ServerError` code and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The number in `ServerError`; 0, UnknownError, where the response has none.
    pub code: i32,
    /// The broker's text.
    pub message: String,
}

impl Refusal {
    fn new(code: i32, message: Option<&str>) -> Self {
        Self { code, message: message.unwrap_or_default().to_owned() }
    }
}

macro_rules! commands {
    ($(
        $number:literal $variant:ident($body:ident) $shape:ident $name:literal $field:literal
        $sender:ident $id:ident $response:tt $refusal:ident,
    )*) => {
        /// A command with its body; the variants are named as `BaseCommand.Type` names them.
        ///
        /// SEND, SEND_RECEIPT and MESSAGE are here for tools and comparison: [`frames`](super::frame::frames)
        /// returns them as separate types.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(clippy::large_enum_variant, reason = "commands other than the hot ones are few; boxing gains nothing")]
        pub enum Command {
            $(
                #[doc = concat!("`", $name, "`, type ", stringify!($number), ".")]
                $variant(pb::$body),
            )*
        }

        $(
            impl From<pb::$body> for Command {
                fn from(body: pb::$body) -> Self {
                    Self::$variant(body)
                }
            }
        )*

        impl Command {
            /// The name in `BaseCommand.Type`, such as `PARTITIONED_METADATA_RESPONSE`.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self { $( Self::$variant(_) => $name, )* }
            }

            /// The number in `BaseCommand.Type`, which is also the field number of the body.
            #[must_use]
            pub fn command_type(&self) -> i32 {
                match self { $( Self::$variant(_) => $number, )* }
            }

            /// Who may send it.
            #[must_use]
            pub fn sender(&self) -> Sender {
                match self { $( Self::$variant(_) => Sender::$sender, )* }
            }

            /// The `request_id` of the body, if it has one and it is set. 2^64-1 means "no request".
            #[must_use]
            pub fn request_id(&self) -> Option<u64> {
                match self { $( Self::$variant(body) => request_id!($id body), )* }
            }

            /// Sets the `request_id`; does nothing to a command without that field.
            pub fn set_request_id(&mut self, request_id: u64) {
                match self { $( Self::$variant(body) => set_request_id!($id body request_id), )* }
            }

            /// The type of the response to this command; `None` if there is none. An ACK has one only when it carries a
            /// `request_id`.
            #[must_use]
            pub fn response_type(&self) -> Option<Type> {
                let response = match self { $( Self::$variant(_) => response_type!($response), )* };
                response.filter(|_| self.request_id().is_some() || !matches!(self, Self::Ack(_)))
            }

            /// The refusal that a response carries, if it is one.
            #[must_use]
            pub fn refusal(&self) -> Option<Refusal> {
                match self { $( Self::$variant(body) => refusal!($refusal body), )* }
            }

            /// A response of type `response_type` that refuses; `None` where the protocol has ERROR for that.
            fn refusing(response_type: Type, refusal: &Refusal) -> Option<Self> {
                match response_type {
                    $( Type::$variant => refusing!($refusal $variant $body refusal), )*
                }
            }

            /// All commands as `(type, name)`, in ascending order of the type.
            pub const ALL: &'static [(i32, &'static str)] = &[ $( ($number, $name), )* ];

            /// Who may send a command of that type.
            #[cfg(feature = "capture")]
            pub(crate) fn sender_of(command_type: i32) -> Option<Sender> {
                match command_type {
                    $( $number => Some(Sender::$sender), )*
                    _ => None,
                }
            }

            /// Whether `command_type` is the type of a command of this enum.
            pub(crate) fn is_known(command_type: i32) -> bool {
                shape(command_type).is_some()
            }

            fn body_len(&self) -> usize {
                match self { $( Self::$variant(body) => body.encoded_len(), )* }
            }

            fn encode_body(&self, out: &mut BytesMut) {
                let written = match self { $( Self::$variant(body) => body.encode(out), )* };
                written.expect("a BytesMut grows as needed");
            }

            fn decode_known(command_type: i32, body: &[u8]) -> Option<Result<Self, prost::DecodeError>> {
                Some(match command_type {
                    $( $number => pb::$body::decode(body).map(Self::$variant), )*
                    _ => return None,
                })
            }
        }

        /// The field of `BaseCommand` that holds the body of a type.
        pub(crate) fn body_field(command_type: i32) -> &'static str {
            match command_type {
                $( $number => $field, )*
                _ => "BaseCommand",
            }
        }

        fn shape(command_type: i32) -> Option<&'static Shape> {
            Some(match command_type {
                $( $number => &required::$shape, )*
                _ => return None,
            })
        }
    };
}

impl Command {
    /// The response that refuses this request, as a broker gives it: in the fields that the responding command has for
    /// that, else as ERROR. `None` for a command without a response.
    #[must_use]
    pub fn refused(&self, refusal: &Refusal) -> Option<Self> {
        let (response_type, request_id) = (self.response_type()?, self.request_id()?);
        let Some(mut refusing) = Self::refusing(response_type, refusal) else {
            return Some(pb::CommandError { request_id, error: refusal.code, message: refusal.message.clone() }.into());
        };
        refusing.set_request_id(request_id);
        if let (Self::Ack(ack), Self::AckResponse(response)) = (self, &mut refusing) {
            response.consumer_id = ack.consumer_id;
        }
        Some(refusing)
    }

    /// Decodes the body of a command of type `command_type`. `None` for an unknown type. An enum field may
    /// hold a number without a name. Offsets in errors start at `base`.
    ///
    /// # Errors
    /// Bytes that are not protobuf, or a missing field that proto2 requires.
    pub fn decode(command_type: i32, body: &[u8], base: usize) -> Result<Option<Self>, DecodeError> {
        let Some(shape) = shape(command_type) else { return Ok(None) };
        required::check(shape, body, base)?;
        match Self::decode_known(command_type, body) {
            None => Ok(None),
            Some(Ok(command)) => Ok(Some(command)),
            Some(Err(error)) => {
                let kind = DecodeErrorKind::Protobuf(error.to_string());
                Err(DecodeError::new(kind, body_field(command_type), base))
            }
        }
    }

    /// Decodes a `BaseCommand`, including hot commands. `None` for an unknown type.
    ///
    /// # Errors
    /// Bytes that are not protobuf, a missing type or body, or a missing field that proto2 requires.
    pub fn decode_base(command: &[u8]) -> Result<Option<Self>, DecodeError> {
        let envelope = split_envelope(command, 0)?;
        if !Self::is_known(envelope.command_type) {
            return Ok(None);
        }
        let Some(body) = envelope.body else {
            return Err(missing_body(envelope.command_type, 0));
        };
        Self::decode(envelope.command_type, &body, envelope.body_at)
    }

    /// Encodes the whole frame of a command without payload: `total_size`, `command_size`, command.
    pub fn encode_frame(&self, out: &mut BytesMut) {
        put_envelope(out, self.command_type(), self.body_len(), 0);
        self.encode_body(out);
    }

    /// Bytes that [`encode_frame`](Self::encode_frame) writes, both length fields included.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let body = self.body_len();
        8 + envelope_len(self.command_type()) + varint_len(body as u64) + body
    }
}

/// The error for a type whose body is absent.
pub(crate) fn missing_body(command_type: i32, base: usize) -> DecodeError {
    DecodeError::new(DecodeErrorKind::Missing, body_field(command_type), base)
}

// The columns: type and field number; variant and body; shape of required fields; name of the type; field of
// `BaseCommand`; who may send it; its `request_id` field; for a request, its response; for a response,
// the fields that carry a refusal.
commands! {
    2 Connect(CommandConnect) CONNECT "CONNECT" "BaseCommand.connect" Client none _ none,
    3 Connected(CommandConnected) CONNECTED "CONNECTED" "BaseCommand.connected" Broker none _ none,
    4 Subscribe(CommandSubscribe) SUBSCRIBE "SUBSCRIBE" "BaseCommand.subscribe" Client required Success none,
    5 Producer(CommandProducer) PRODUCER "PRODUCER" "BaseCommand.producer" Client required ProducerSuccess none,
    6 Send(CommandSend) SEND "SEND" "BaseCommand.send" Client none _ none,
    7 SendReceipt(CommandSendReceipt) SEND_RECEIPT "SEND_RECEIPT" "BaseCommand.send_receipt" Broker none _ none,
    8 SendError(CommandSendError) SEND_ERROR "SEND_ERROR" "BaseCommand.send_error" Broker none _ none,
    9 Message(CommandMessage) MESSAGE "MESSAGE" "BaseCommand.message" Broker none _ none,
    10 Ack(CommandAck) ACK "ACK" "BaseCommand.ack" Client optional AckResponse none,
    11 Flow(CommandFlow) FLOW "FLOW" "BaseCommand.flow" Client none _ none,
    12 Unsubscribe(CommandUnsubscribe) UNSUBSCRIBE "UNSUBSCRIBE" "BaseCommand.unsubscribe" Client required Success none,
    13 Success(CommandSuccess) SUCCESS "SUCCESS" "BaseCommand.success" Broker required _ none,
    14 Error(CommandError) ERROR "ERROR" "BaseCommand.error" Broker required _ itself,
    15 CloseProducer(CommandCloseProducer) CLOSE_PRODUCER "CLOSE_PRODUCER" "BaseCommand.close_producer" Both required Success none,
    16 CloseConsumer(CommandCloseConsumer) CLOSE_CONSUMER "CLOSE_CONSUMER" "BaseCommand.close_consumer" Both required Success none,
    17 ProducerSuccess(CommandProducerSuccess) PRODUCER_SUCCESS "PRODUCER_SUCCESS" "BaseCommand.producer_success" Broker required _ none,
    18 Ping(CommandPing) PING "PING" "BaseCommand.ping" Both none _ none,
    19 Pong(CommandPong) PONG "PONG" "BaseCommand.pong" Both none _ none,
    20 RedeliverUnacknowledgedMessages(CommandRedeliverUnacknowledgedMessages) REDELIVER_UNACKNOWLEDGED_MESSAGES "REDELIVER_UNACKNOWLEDGED_MESSAGES" "BaseCommand.redeliverUnacknowledgedMessages" Client none _ none,
    21 PartitionedMetadata(CommandPartitionedTopicMetadata) PARTITIONED_TOPIC_METADATA "PARTITIONED_METADATA" "BaseCommand.partitionMetadata" Client required PartitionedMetadataResponse none,
    22 PartitionedMetadataResponse(CommandPartitionedTopicMetadataResponse) PARTITIONED_TOPIC_METADATA_RESPONSE "PARTITIONED_METADATA_RESPONSE" "BaseCommand.partitionMetadataResponse" Broker required _ partitions,
    23 Lookup(CommandLookupTopic) LOOKUP_TOPIC "LOOKUP" "BaseCommand.lookupTopic" Client required LookupResponse none,
    24 LookupResponse(CommandLookupTopicResponse) LOOKUP_TOPIC_RESPONSE "LOOKUP_RESPONSE" "BaseCommand.lookupTopicResponse" Broker required _ lookup,
    25 ConsumerStats(CommandConsumerStats) CONSUMER_STATS "CONSUMER_STATS" "BaseCommand.consumerStats" Client required ConsumerStatsResponse none,
    26 ConsumerStatsResponse(CommandConsumerStatsResponse) CONSUMER_STATS_RESPONSE "CONSUMER_STATS_RESPONSE" "BaseCommand.consumerStatsResponse" Broker required _ code,
    27 ReachedEndOfTopic(CommandReachedEndOfTopic) REACHED_END_OF_TOPIC "REACHED_END_OF_TOPIC" "BaseCommand.reachedEndOfTopic" Broker none _ none,
    28 Seek(CommandSeek) SEEK "SEEK" "BaseCommand.seek" Client required Success none,
    29 GetLastMessageId(CommandGetLastMessageId) GET_LAST_MESSAGE_ID "GET_LAST_MESSAGE_ID" "BaseCommand.getLastMessageId" Client required GetLastMessageIdResponse none,
    30 GetLastMessageIdResponse(CommandGetLastMessageIdResponse) GET_LAST_MESSAGE_ID_RESPONSE "GET_LAST_MESSAGE_ID_RESPONSE" "BaseCommand.getLastMessageIdResponse" Broker required _ none,
    31 ActiveConsumerChange(CommandActiveConsumerChange) ACTIVE_CONSUMER_CHANGE "ACTIVE_CONSUMER_CHANGE" "BaseCommand.active_consumer_change" Broker none _ none,
    32 GetTopicsOfNamespace(CommandGetTopicsOfNamespace) GET_TOPICS_OF_NAMESPACE "GET_TOPICS_OF_NAMESPACE" "BaseCommand.getTopicsOfNamespace" Client required GetTopicsOfNamespaceResponse none,
    33 GetTopicsOfNamespaceResponse(CommandGetTopicsOfNamespaceResponse) GET_TOPICS_OF_NAMESPACE_RESPONSE "GET_TOPICS_OF_NAMESPACE_RESPONSE" "BaseCommand.getTopicsOfNamespaceResponse" Broker required _ none,
    34 GetSchema(CommandGetSchema) GET_SCHEMA "GET_SCHEMA" "BaseCommand.getSchema" Client required GetSchemaResponse none,
    35 GetSchemaResponse(CommandGetSchemaResponse) GET_SCHEMA_RESPONSE "GET_SCHEMA_RESPONSE" "BaseCommand.getSchemaResponse" Broker required _ code,
    36 AuthChallenge(CommandAuthChallenge) AUTH_CHALLENGE "AUTH_CHALLENGE" "BaseCommand.authChallenge" Broker none _ none,
    37 AuthResponse(CommandAuthResponse) AUTH_RESPONSE "AUTH_RESPONSE" "BaseCommand.authResponse" Client none _ none,
    38 AckResponse(CommandAckResponse) ACK_RESPONSE "ACK_RESPONSE" "BaseCommand.ackResponse" Broker optional _ error,
    39 GetOrCreateSchema(CommandGetOrCreateSchema) GET_OR_CREATE_SCHEMA "GET_OR_CREATE_SCHEMA" "BaseCommand.getOrCreateSchema" Client required GetOrCreateSchemaResponse none,
    40 GetOrCreateSchemaResponse(CommandGetOrCreateSchemaResponse) GET_OR_CREATE_SCHEMA_RESPONSE "GET_OR_CREATE_SCHEMA_RESPONSE" "BaseCommand.getOrCreateSchemaResponse" Broker required _ code,
    50 NewTxn(CommandNewTxn) NEW_TXN "NEW_TXN" "BaseCommand.newTxn" Client required NewTxnResponse none,
    51 NewTxnResponse(CommandNewTxnResponse) NEW_TXN_RESPONSE "NEW_TXN_RESPONSE" "BaseCommand.newTxnResponse" Broker required _ error,
    52 AddPartitionToTxn(CommandAddPartitionToTxn) ADD_PARTITION_TO_TXN "ADD_PARTITION_TO_TXN" "BaseCommand.addPartitionToTxn" Client required AddPartitionToTxnResponse none,
    53 AddPartitionToTxnResponse(CommandAddPartitionToTxnResponse) ADD_PARTITION_TO_TXN_RESPONSE "ADD_PARTITION_TO_TXN_RESPONSE" "BaseCommand.addPartitionToTxnResponse" Broker required _ error,
    54 AddSubscriptionToTxn(CommandAddSubscriptionToTxn) ADD_SUBSCRIPTION_TO_TXN "ADD_SUBSCRIPTION_TO_TXN" "BaseCommand.addSubscriptionToTxn" Client required AddSubscriptionToTxnResponse none,
    55 AddSubscriptionToTxnResponse(CommandAddSubscriptionToTxnResponse) ADD_SUBSCRIPTION_TO_TXN_RESPONSE "ADD_SUBSCRIPTION_TO_TXN_RESPONSE" "BaseCommand.addSubscriptionToTxnResponse" Broker required _ error,
    56 EndTxn(CommandEndTxn) END_TXN "END_TXN" "BaseCommand.endTxn" Client required EndTxnResponse none,
    57 EndTxnResponse(CommandEndTxnResponse) END_TXN_RESPONSE "END_TXN_RESPONSE" "BaseCommand.endTxnResponse" Broker required _ error,
    58 EndTxnOnPartition(CommandEndTxnOnPartition) END_TXN_ON_PARTITION "END_TXN_ON_PARTITION" "BaseCommand.endTxnOnPartition" Client required EndTxnOnPartitionResponse none,
    59 EndTxnOnPartitionResponse(CommandEndTxnOnPartitionResponse) END_TXN_ON_PARTITION_RESPONSE "END_TXN_ON_PARTITION_RESPONSE" "BaseCommand.endTxnOnPartitionResponse" Broker required _ error,
    60 EndTxnOnSubscription(CommandEndTxnOnSubscription) END_TXN_ON_SUBSCRIPTION "END_TXN_ON_SUBSCRIPTION" "BaseCommand.endTxnOnSubscription" Client required EndTxnOnSubscriptionResponse none,
    61 EndTxnOnSubscriptionResponse(CommandEndTxnOnSubscriptionResponse) END_TXN_ON_SUBSCRIPTION_RESPONSE "END_TXN_ON_SUBSCRIPTION_RESPONSE" "BaseCommand.endTxnOnSubscriptionResponse" Broker required _ error,
    62 TcClientConnectRequest(CommandTcClientConnectRequest) TC_CLIENT_CONNECT_REQUEST "TC_CLIENT_CONNECT_REQUEST" "BaseCommand.tcClientConnectRequest" Client required TcClientConnectResponse none,
    63 TcClientConnectResponse(CommandTcClientConnectResponse) TC_CLIENT_CONNECT_RESPONSE "TC_CLIENT_CONNECT_RESPONSE" "BaseCommand.tcClientConnectResponse" Broker required _ error,
    64 WatchTopicList(CommandWatchTopicList) WATCH_TOPIC_LIST "WATCH_TOPIC_LIST" "BaseCommand.watchTopicList" Client required WatchTopicListSuccess none,
    65 WatchTopicListSuccess(CommandWatchTopicListSuccess) WATCH_TOPIC_LIST_SUCCESS "WATCH_TOPIC_LIST_SUCCESS" "BaseCommand.watchTopicListSuccess" Broker required _ none,
    66 WatchTopicUpdate(CommandWatchTopicUpdate) WATCH_TOPIC_UPDATE "WATCH_TOPIC_UPDATE" "BaseCommand.watchTopicUpdate" Broker none _ none,
    67 WatchTopicListClose(CommandWatchTopicListClose) WATCH_TOPIC_LIST_CLOSE "WATCH_TOPIC_LIST_CLOSE" "BaseCommand.watchTopicListClose" Client required Success none,
    68 TopicMigrated(CommandTopicMigrated) TOPIC_MIGRATED "TOPIC_MIGRATED" "BaseCommand.topicMigrated" Broker none _ none,
}

#[cfg(test)]
mod tests {
    use prost_reflect::{Cardinality, DescriptorPool, MessageDescriptor};

    use super::*;

    const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pulsar.fds"));

    fn base_command() -> MessageDescriptor {
        let pool = DescriptorPool::decode(DESCRIPTORS).expect("the build's descriptors");
        pool.get_message_by_name("pulsar.proto.BaseCommand").expect("BaseCommand")
    }

    /// Every command with nothing set in it, by its type.
    fn all() -> impl Iterator<Item = (i32, Command)> {
        let default = |kind| Command::decode_known(kind, &[]).expect("in the table").expect("nothing to refuse");
        Command::ALL.iter().map(move |&(kind, _)| (kind, default(kind)))
    }

    #[cfg_attr(miri, ignore = "Miri takes minutes to read the compiled schema")]
    #[test]
    fn the_table_is_the_schema() {
        let base = base_command();
        let types = base.get_field_by_name("type").expect("type").kind().as_enum().expect("an enum").clone();
        let expected: Vec<(i32, String)> =
            types.values().map(|value| (value.number(), value.name().to_owned())).collect();
        let ours: Vec<(i32, String)> = Command::ALL.iter().map(|&(kind, name)| (kind, name.to_owned())).collect();
        assert_eq!(ours, expected);
        assert_eq!(base.fields().count(), 1 + ours.len());
        for (kind, command) in all() {
            assert_eq!(command.command_type(), kind);
            let field = base.get_field(kind as u32).expect("the body has the number of the type");
            assert_eq!(body_field(kind), format!("BaseCommand.{}", field.name()));
            let body = field.kind().as_message().expect("a message").clone();
            check_shape(shape(kind).expect("in the table"), &body);
            let mut command = command;
            command.set_request_id(77);
            assert_eq!(command.request_id(), body.get_field_by_name("request_id").map(|_| 77), "{}", command.name());
        }
    }

    /// Whether a message or one it nests has required fields.
    fn asks_for_something(message: &MessageDescriptor, above: &mut Vec<String>) -> bool {
        if above.iter().any(|name| name == message.full_name()) {
            return false;
        }
        above.push(message.full_name().to_owned());
        let found = message.fields().any(|field| {
            field.cardinality() == Cardinality::Required
                || field.kind().as_message().is_some_and(|nested| asks_for_something(nested, above))
        });
        above.pop();
        found
    }

    fn check_shape(shape: &Shape, message: &MessageDescriptor) {
        let required: Vec<(u32, String)> = message
            .fields()
            .filter(|field| field.cardinality() == Cardinality::Required)
            .map(|field| (field.number(), format!("{}.{}", message.name(), field.name())))
            .collect();
        let ours: Vec<(u32, String)> = shape.required.iter().map(|&(number, name)| (number, name.to_owned())).collect();
        assert_eq!(ours, required);
        assert!(ours.len() <= 64);
        let nested: Vec<_> = message
            .fields()
            .filter_map(|field| Some((field.number(), field.kind().as_message()?.clone())))
            .filter(|(_, nested)| asks_for_something(nested, &mut Vec::new()))
            .collect();
        assert_eq!(shape.nested.len(), nested.len(), "{}", message.name());
        for (&(number, inner), (expected, nested)) in shape.nested.iter().zip(&nested) {
            assert_eq!(number, *expected);
            // An id nests an id: looked at once.
            if message.name() != nested.name() {
                check_shape(inner, nested);
            }
        }
    }

    #[test]
    fn the_length_is_known_before_writing() {
        for (_, command) in all() {
            let mut out = BytesMut::new();
            command.encode_frame(&mut out);
            assert_eq!(out.len(), command.encoded_len(), "{}", command.name());
            assert_eq!(out[..4], (out.len() as u32 - 4).to_be_bytes());
            assert_eq!(out[4..8], (out.len() as u32 - 8).to_be_bytes());
        }
    }

    #[test]
    fn each_side_has_its_commands() {
        let of = |wanted| all().filter(|(_, command)| command.sender() == wanted).count();
        assert_eq!((of(Sender::Client), of(Sender::Broker), of(Sender::Both)), (26, 28, 4));
        assert_eq!(Command::from(pb::CommandConnect::default()).sender(), Sender::Client);
        assert_eq!(Command::from(pb::CommandConnected::default()).sender(), Sender::Broker);
    }

    #[test]
    fn the_fast_and_the_general_split_agree() {
        let flow = [0x08, 0x0b, 0x5a, 4, 0x08, 1, 0x10, 2];
        assert_eq!(split_envelope_fast(&flow), Some((11, &flow[4..])));
        let envelope = split_envelope(&flow, 100).expect("good");
        assert_eq!((envelope.command_type, envelope.body.as_deref(), envelope.body_at), (11, Some(&flow[4..]), 104));
        for other in [&flow[..7], &[0x08, 0x0b, 0x52, 0], &[0x08, 0x0b], &[0x08, 0x12, 0x92, 0x01, 0], &[]] {
            assert_eq!(split_envelope_fast(other), None, "{other:?}");
        }
    }

    #[test]
    fn nested_required_fields_are_asked_for() {
        // SEEK { consumer_id: 1, request_id: 1, message_id: { ledgerId: 5 } }
        let body = [0x08, 1, 0x10, 1, 0x1a, 2, 0x08, 5];
        let error = Command::decode(28, &body, 50).expect_err("no entryId");
        assert_eq!(error, DecodeError::new(DecodeErrorKind::Missing, "MessageIdData.entryId", 56));
        assert_eq!(Command::decode(69, &body, 0), Ok(None));
    }
}
