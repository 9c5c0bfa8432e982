//! Which fields proto2 requires, and the check that they are present.
//!
//! The generated decoder reads an absent required field as its default, which would turn damage into ids
//! of 0. Unlike in protobuf, which merges the pieces of a message before the check, each piece of a nested
//! message must be complete: no known encoder splits one.

use super::error::{DecodeError, DecodeErrorKind};
use super::proto::{Reader, Value};

/// How deep messages may nest. The deepest in use is an id in an id in a command; the generated
/// decoder stops at 100, counted from the envelope.
const DEPTH_MAX: usize = 64;

/// What must be present in a message and in those it nests.
#[derive(Debug)]
pub(crate) struct Shape {
    name: &'static str,
    /// At most 64: the check keeps one bit for each.
    pub(super) required: &'static [(u32, &'static str)],
    /// Only those with required fields of their own, at any depth.
    pub(super) nested: &'static [(u32, &'static Shape)],
}

/// Checks that `bytes` are well-formed fields, with all required ones present.
pub(crate) fn check(shape: &Shape, bytes: &[u8], base: usize) -> Result<(), DecodeError> {
    check_at(shape, bytes, base, 0)
}

fn check_at(shape: &Shape, bytes: &[u8], base: usize, depth: usize) -> Result<(), DecodeError> {
    if depth == DEPTH_MAX {
        let kind = DecodeErrorKind::TooLarge { size: depth as u64 + 1, max: DEPTH_MAX as u64 };
        return Err(DecodeError::new(kind, shape.name, base));
    }
    let mut reader = Reader::new(bytes, base);
    let mut seen = 0u64;
    while let Some((number, value)) = reader.next(shape.name)? {
        if let Some(index) = shape.required.iter().position(|&(required, _)| required == number) {
            seen |= 1 << index;
        }
        let Value::Bytes(range) = value else { continue };
        if let Some((_, nested)) = shape.nested.iter().find(|&&(field, _)| field == number) {
            check_at(nested, &bytes[range.clone()], base + range.start, depth + 1)?;
        }
    }
    for (index, &(_, field)) in shape.required.iter().enumerate() {
        let is_forgotten = parser_mutation!(RequiredFieldForgotten) && index + 1 == shape.required.len();
        if seen & (1 << index) == 0 && !is_forgotten {
            return Err(DecodeError::new(DecodeErrorKind::Missing, field, base));
        }
    }
    Ok(())
}

macro_rules! shapes {
    ($( $static:ident = $message:ident [ $( ($number:literal, $field:ident) ),* ] [ $( ($at:literal, $nested:ident) ),* ]; )*) => {
        $(
            pub(crate) static $static: Shape = Shape {
                name: stringify!($message),
                required: &[ $( ($number, concat!(stringify!($message), ".", stringify!($field))) ),* ],
                nested: &[ $( ($at, &$nested) ),* ],
            };
        )*
    };
}

shapes! {
    MESSAGE_ID_DATA = MessageIdData [(1, ledgerId), (2, entryId)] [(7, MESSAGE_ID_DATA)];
    KEY_VALUE = KeyValue [(1, key), (2, value)] [];
    SCHEMA = Schema [(1, name), (3, schema_data), (4, type)] [(5, KEY_VALUE)];
    KEY_SHARED_META = KeySharedMeta [(1, keySharedMode)] [(3, INT_RANGE)];
    INT_RANGE = IntRange [(1, start), (2, end)] [];
    KEY_LONG_VALUE = KeyLongValue [(1, key), (2, value)] [];
    SUBSCRIPTION = Subscription [(1, topic), (2, subscription)] [];
    ENCRYPTION_KEYS = EncryptionKeys [(1, key), (2, value)] [(3, KEY_VALUE)];
    CONNECT = CommandConnect [(1, client_version)] [];
    CONNECTED = CommandConnected [(1, server_version)] [];
    SUBSCRIBE = CommandSubscribe [(1, topic), (2, subscription), (3, subType), (4, consumer_id), (5, request_id)] [(9, MESSAGE_ID_DATA), (10, KEY_VALUE), (12, SCHEMA), (17, KEY_SHARED_META), (18, KEY_VALUE)];
    PRODUCER = CommandProducer [(1, topic), (2, producer_id), (3, request_id)] [(6, KEY_VALUE), (7, SCHEMA)];
    SEND = CommandSend [(1, producer_id), (2, sequence_id)] [(9, MESSAGE_ID_DATA)];
    SEND_RECEIPT = CommandSendReceipt [(1, producer_id), (2, sequence_id)] [(3, MESSAGE_ID_DATA)];
    SEND_ERROR = CommandSendError [(1, producer_id), (2, sequence_id), (3, error), (4, message)] [];
    MESSAGE = CommandMessage [(1, consumer_id), (2, message_id)] [(2, MESSAGE_ID_DATA)];
    ACK = CommandAck [(1, consumer_id), (2, ack_type)] [(3, MESSAGE_ID_DATA), (5, KEY_LONG_VALUE)];
    FLOW = CommandFlow [(1, consumer_id), (2, messagePermits)] [];
    UNSUBSCRIBE = CommandUnsubscribe [(1, consumer_id), (2, request_id)] [];
    SUCCESS = CommandSuccess [(1, request_id)] [(2, SCHEMA)];
    ERROR = CommandError [(1, request_id), (2, error), (3, message)] [];
    CLOSE_PRODUCER = CommandCloseProducer [(1, producer_id), (2, request_id)] [];
    CLOSE_CONSUMER = CommandCloseConsumer [(1, consumer_id), (2, request_id)] [];
    PRODUCER_SUCCESS = CommandProducerSuccess [(1, request_id), (2, producer_name)] [];
    PING = CommandPing [] [];
    PONG = CommandPong [] [];
    REDELIVER_UNACKNOWLEDGED_MESSAGES = CommandRedeliverUnacknowledgedMessages [(1, consumer_id)] [(2, MESSAGE_ID_DATA)];
    PARTITIONED_TOPIC_METADATA = CommandPartitionedTopicMetadata [(1, topic), (2, request_id)] [];
    PARTITIONED_TOPIC_METADATA_RESPONSE = CommandPartitionedTopicMetadataResponse [(2, request_id)] [];
    LOOKUP_TOPIC = CommandLookupTopic [(1, topic), (2, request_id)] [(8, KEY_VALUE)];
    LOOKUP_TOPIC_RESPONSE = CommandLookupTopicResponse [(4, request_id)] [];
    CONSUMER_STATS = CommandConsumerStats [(1, request_id), (4, consumer_id)] [];
    CONSUMER_STATS_RESPONSE = CommandConsumerStatsResponse [(1, request_id)] [];
    REACHED_END_OF_TOPIC = CommandReachedEndOfTopic [(1, consumer_id)] [];
    SEEK = CommandSeek [(1, consumer_id), (2, request_id)] [(3, MESSAGE_ID_DATA)];
    GET_LAST_MESSAGE_ID = CommandGetLastMessageId [(1, consumer_id), (2, request_id)] [];
    GET_LAST_MESSAGE_ID_RESPONSE = CommandGetLastMessageIdResponse [(1, last_message_id), (2, request_id)] [(1, MESSAGE_ID_DATA), (3, MESSAGE_ID_DATA)];
    ACTIVE_CONSUMER_CHANGE = CommandActiveConsumerChange [(1, consumer_id)] [];
    GET_TOPICS_OF_NAMESPACE = CommandGetTopicsOfNamespace [(1, request_id), (2, namespace)] [(6, KEY_VALUE)];
    GET_TOPICS_OF_NAMESPACE_RESPONSE = CommandGetTopicsOfNamespaceResponse [(1, request_id)] [];
    GET_SCHEMA = CommandGetSchema [(1, request_id), (2, topic)] [];
    GET_SCHEMA_RESPONSE = CommandGetSchemaResponse [(1, request_id)] [(4, SCHEMA)];
    AUTH_CHALLENGE = CommandAuthChallenge [] [];
    AUTH_RESPONSE = CommandAuthResponse [] [];
    ACK_RESPONSE = CommandAckResponse [(1, consumer_id)] [];
    GET_OR_CREATE_SCHEMA = CommandGetOrCreateSchema [(1, request_id), (2, topic), (3, schema)] [(3, SCHEMA)];
    GET_OR_CREATE_SCHEMA_RESPONSE = CommandGetOrCreateSchemaResponse [(1, request_id)] [];
    NEW_TXN = CommandNewTxn [(1, request_id)] [];
    NEW_TXN_RESPONSE = CommandNewTxnResponse [(1, request_id)] [];
    ADD_PARTITION_TO_TXN = CommandAddPartitionToTxn [(1, request_id)] [];
    ADD_PARTITION_TO_TXN_RESPONSE = CommandAddPartitionToTxnResponse [(1, request_id)] [];
    ADD_SUBSCRIPTION_TO_TXN = CommandAddSubscriptionToTxn [(1, request_id)] [(4, SUBSCRIPTION)];
    ADD_SUBSCRIPTION_TO_TXN_RESPONSE = CommandAddSubscriptionToTxnResponse [(1, request_id)] [];
    END_TXN = CommandEndTxn [(1, request_id)] [];
    END_TXN_RESPONSE = CommandEndTxnResponse [(1, request_id)] [];
    END_TXN_ON_PARTITION = CommandEndTxnOnPartition [(1, request_id)] [];
    END_TXN_ON_PARTITION_RESPONSE = CommandEndTxnOnPartitionResponse [(1, request_id)] [];
    END_TXN_ON_SUBSCRIPTION = CommandEndTxnOnSubscription [(1, request_id)] [(4, SUBSCRIPTION)];
    END_TXN_ON_SUBSCRIPTION_RESPONSE = CommandEndTxnOnSubscriptionResponse [(1, request_id)] [];
    TC_CLIENT_CONNECT_REQUEST = CommandTcClientConnectRequest [(1, request_id), (2, tc_id)] [];
    TC_CLIENT_CONNECT_RESPONSE = CommandTcClientConnectResponse [(1, request_id)] [];
    WATCH_TOPIC_LIST = CommandWatchTopicList [(1, request_id), (2, watcher_id), (3, namespace), (4, topics_pattern)] [];
    WATCH_TOPIC_LIST_SUCCESS = CommandWatchTopicListSuccess [(1, request_id), (2, watcher_id), (4, topics_hash)] [];
    WATCH_TOPIC_UPDATE = CommandWatchTopicUpdate [(1, watcher_id), (4, topics_hash)] [];
    WATCH_TOPIC_LIST_CLOSE = CommandWatchTopicListClose [(1, request_id), (2, watcher_id)] [];
    TOPIC_MIGRATED = CommandTopicMigrated [(1, resource_id), (2, resource_type)] [];
}
