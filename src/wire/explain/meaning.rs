//! What values mean: numbers that stand for something, times as dates, errors in a phrase, and what the fields are for that matter.

use std::borrow::Cow;

use super::time::date;
use super::{Value, commands};

type Meaning = Option<Cow<'static, str>>;

/// What a value of a field of the schema means.
pub(super) fn of_field(message: &str, field: &str, value: &Value) -> Meaning {
    match value {
        Value::Message { name, .. } => return of_message(message, name),
        Value::Enum { number, .. } => return of_enum(message, field, *number),
        Value::Uint64(number) => {
            if let Some(meaning) = of_unsigned(message, field, *number) {
                return Some(meaning);
            }
        }
        Value::Int64(number) => {
            if let Some(meaning) = of_signed(message, field, *number) {
                return Some(meaning);
            }
        }
        Value::Int32(number) => {
            if let Some(meaning) = of_int(field, *number) {
                return Some(meaning);
            }
        }
        Value::Bytes(bytes) if field == "schema_version" => return of_schema_version(bytes),
        Value::Bool(set) => return of_flag(message, field, *set).map(Into::into),
        _ => {}
    }
    purpose(message, field).map(Into::into)
}

fn of_message(message: &str, name: &str) -> Meaning {
    if message == "BaseCommand" {
        return None;
    }
    let text = match name {
        "MessageIdData" => "where a message is",
        "FeatureFlags" => "what this side can do beyond its protocol version",
        "KeySharedMeta" => "how a Key_Shared subscription divides its keys",
        "Schema" => "how values are encoded",
        "EncryptionKeys" => "the data key, encrypted for one reader",
        "AuthData" => "one step of an authentication",
        _ => return None,
    };
    Some(text.into())
}

fn of_enum(message: &str, field: &str, number: i32) -> Meaning {
    let text = match (message, field, number) {
        ("BaseCommand", "type", _) if commands::of_type(number).is_none() => {
            "unknown to this version of the schema: a client skips it, a broker closes the connection"
        }
        (_, "error" | "error_code", _) => return server_error(number).map(Into::into),
        ("CommandLookupTopicResponse", "response", 0) => "ask again at the named broker",
        ("CommandLookupTopicResponse", "response", 1) => "the named broker serves the topic",
        (_, "response", 2) | ("CommandPartitionedTopicMetadataResponse", "response", 1) => "see error",
        ("CommandSubscribe", "subType", 0) => "one consumer, in order",
        ("CommandSubscribe", "subType", 1) => "messages go round among the consumers, without order",
        ("CommandSubscribe", "subType", 2) => "one active consumer, others stand by",
        ("CommandSubscribe", "subType", 3) => "messages of one key go to one consumer, in order",
        ("CommandSubscribe", "initialPosition", 0) => "a new subscription starts at messages published from now on",
        ("CommandSubscribe", "initialPosition", 1) => "a new subscription starts at the first message kept",
        ("CommandAck", "ack_type", 0) => "each id for itself",
        ("CommandAck", "ack_type", 1) => "the id and everything before it",
        ("CommandAck", "validation_error", _) => "the client gives a message up that it cannot read",
        ("CommandProducer", "producer_access_mode", 1) => "nobody else may produce, or the request fails",
        ("CommandProducer", "producer_access_mode", 2) => "waits until nobody else produces",
        ("CommandProducer", "producer_access_mode", 3) => "cuts other producers off",
        (_, "keySharedMode", 0) => "the broker divides the keys",
        (_, "keySharedMode", 1) => "the consumers say which hashes they take",
        ("MessageMetadata", "compression", _) => "of the whole payload",
        _ => return None,
    };
    Some(text.into())
}

/// `ServerError` in a phrase, and what a client does about it.
fn server_error(number: i32) -> Option<&'static str> {
    Some(match number {
        0 => "unclassified; worth a retry",
        1 => "the metadata store failed, or the request does not fit its state; worth a retry",
        2 => "storage failed, or the topic is fenced; worth a retry",
        3 => "the credential is bad; final",
        4 => "the role may not do this; final",
        5 => "the subscription is taken, of another type, or full; final",
        6 => "the broker does not serve this topic now; retry after a new lookup",
        7 => "the backlog quota is hit and holds producers back; worth a retry",
        8 => "the backlog quota is hit: pending messages fail, then worth a retry",
        9 => "the checksum of a SEND does not match; the connection stays",
        10 => "the client's protocol version is too low; final",
        11 => "no such topic, partition, namespace or schema version; final",
        12 => "no such subscription, and it may not be created; final",
        13 => "no such consumer",
        14 => "too many lookups at once; retry with back-off",
        15 => "the topic takes no more messages; final",
        16 => "a producer of that name is connected, or the topic is held exclusively; final for a new producer",
        17 => "the topic's name does not parse; final",
        18 => "the schema does not fit that of the topic; final",
        19 => "the sticky hash ranges are missing, malformed or overlap; final",
        20 => "the transaction coordinator is elsewhere; retry after a new lookup",
        21 => "the state of the transaction excludes it; final",
        22 => "understood and refused: a policy, a limit, or a feature that is off; final",
        23 => "acknowledged in another open transaction; final",
        24 => "no such transaction: unknown, expired or ended; final",
        25 => "another producer has taken the topic exclusively; final for this one",
        _ => return None,
    })
}

fn of_unsigned(message: &str, field: &str, number: u64) -> Meaning {
    const LATEST: u64 = i64::MAX as u64;
    let text = match (field, number) {
        ("publish_time" | "event_time" | "broker_timestamp" | "message_publish_time", 1..) => {
            return date(number).map(Into::into);
        }
        ("event_time", 0) => "unset",
        ("request_id", u64::MAX) => "-1: no request is answered",
        ("ledgerId", u64::MAX) if message == "MessageIdData" => "-1: none, or the earliest position",
        ("ledgerId", LATEST) => "the latest position",
        ("entryId", u64::MAX) => "-1: before the first entry",
        ("entryId", LATEST) => "the latest position",
        ("highest_sequence_id" | "sequence_id", u64::MAX) => "-1: none",
        _ => return None,
    };
    Some(text.into())
}

fn of_signed(message: &str, field: &str, number: i64) -> Meaning {
    match (message, field) {
        (_, "ack_set") => {
            Some(format!("{number:#b}: a bit for each message, the first one last; 1 is not acknowledged").into())
        }
        ("MessageMetadata", "deliver_at_time") => date(u64::try_from(number).ok()?).map(Into::into),
        (_, "last_sequence_id") if number == -1 => Some("none stored, or no deduplication".into()),
        _ => None,
    }
}

fn of_int(field: &str, number: i32) -> Meaning {
    let text = match (field, number) {
        ("partition", -1) => "the topic is not partitioned",
        ("batch_index", -1) => "not in a batch",
        ("marker_type", 10) => "REPLICATED_SUBSCRIPTION_SNAPSHOT_REQUEST: of brokers for themselves",
        ("marker_type", 11) => "REPLICATED_SUBSCRIPTION_SNAPSHOT_RESPONSE: of brokers for themselves",
        ("marker_type", 12) => "REPLICATED_SUBSCRIPTION_SNAPSHOT: of brokers for themselves",
        ("marker_type", 13) => "REPLICATED_SUBSCRIPTION_UPDATE: of brokers for themselves",
        ("marker_type", 20) => "TXN_COMMITTING: of brokers for themselves",
        ("marker_type", 21) => "TXN_COMMIT: of brokers for themselves",
        ("marker_type", 22) => "TXN_ABORT: of brokers for themselves",
        ("marker_type", _) => "of brokers for themselves: acknowledge and skip",
        _ => return None,
    };
    Some(text.into())
}

fn of_schema_version(bytes: &[u8]) -> Meaning {
    Some(match <[u8; 8]>::try_from(bytes).map(u64::from_be_bytes) {
        Ok(version) => format!("version {version}").into(),
        Err(_) if bytes.is_empty() => "plain bytes".into(),
        Err(_) => "opaque".into(),
    })
}

fn of_flag(message: &str, field: &str, set: bool) -> Option<&'static str> {
    Some(match (message, field, set) {
        ("CommandLookupTopic", "authoritative", true) => "copied from a Redirect",
        ("CommandLookupTopicResponse", "authoritative", true) => {
            "to be copied into the request that follows a Redirect"
        }
        (_, "proxy_through_service_url", true) => "keep the address, and name the broker in proxy_to_broker_url",
        ("CommandSubscribe", "durable", false) => "the position vanishes with the consumer, as of a reader",
        ("CommandSubscribe", "force_topic_creation", false) => "does not create the topic",
        (_, "producer_ready", false) => "waits for exclusivity; a second answer follows",
        (_, "is_active", true) => "messages come to this consumer",
        (_, "is_active", false) => "stands by",
        ("CommandUnsubscribe", "force", true) => "also while other consumers are connected",
        (_, "null_value", true) => "a tombstone, which differs from an empty payload",
        (_, "null_partition_key", true) => "the key is null, not absent",
        (_, "partition_key_b64_encoded", true) => "the key is binary, in base64",
        (_, "compacted_out", true) => "a placeholder: compaction removed the message",
        (_, "user_provided_producer_name", false) => "the broker made the name",
        (_, "changed", false) => "the hash of the request still holds",
        (_, "filtered", true) => "the broker applied the pattern",
        (_, "is_chunk", true) => "one chunk of a larger message",
        _ => return None,
    })
}

/// What a field is for, where its name does not say it.
fn purpose(message: &str, field: &str) -> Option<&'static str> {
    let own = match (message, field) {
        ("CommandConnect" | "CommandAuthResponse", "protocol_version") => "the highest that the client speaks",
        ("CommandConnected", "protocol_version") => "the lower of both sides': nothing newer may be sent",
        ("CommandConnected", "max_message_size") => "bytes; frames may be 10240 longer",
        ("CommandConnect", "proxy_to_broker_url") => "where a proxy connects this connection to",
        ("CommandConnect", "original_principal" | "original_auth_method" | "proxy_version") => {
            "of a proxy, for its client"
        }
        ("CommandFlow", "messagePermits") => "how many messages more may come",
        ("CommandSend", "sequence_id") => "of the entry; the lowest of a batch; the receipt has it again",
        ("CommandSend", "highest_sequence_id") => "of a batch",
        ("CommandSend", "num_messages") => "in the batch",
        ("CommandSendReceipt" | "CommandSendError", "sequence_id") => "of the SEND that is answered",
        ("CommandProducer", "epoch") => "one more with each PRODUCER of this producer",
        ("CommandProducer" | "CommandProducerSuccess", "topic_epoch") => "who holds the topic exclusively",
        ("CommandProducerSuccess", "last_sequence_id") => "the highest stored under this name",
        ("CommandProducerSuccess", "producer_name") => "also the name for reconnecting",
        ("CommandSubscribe", "priority_level") => "lower is served first",
        ("CommandSubscribe", "start_message_rollback_duration_sec") => "how far back to start, seconds",
        ("CommandSubscribe" | "CommandMessage" | "CommandRedeliverUnacknowledgedMessages", "consumer_epoch") => {
            "tells messages from before a redelivery request"
        }
        ("CommandMessage", "redelivery_count") => "deliveries before this one",
        ("CommandAck", "request_id") => "asks for ACK_RESPONSE",
        ("CommandPartitionedTopicMetadataResponse", "partitions") => "0: not partitioned",
        ("CommandNewTxn", "txn_ttl_millis") => "milliseconds until it is aborted",
        ("MessageMetadata", "uncompressed_size") => "bytes before compression",
        ("MessageMetadata", "num_messages_in_batch") => "the payload is a batch of records",
        ("MessageMetadata", "highest_sequence_id") => "of the batch",
        ("MessageMetadata", "ordering_key") | ("SingleMessageMetadata", "ordering_key") => {
            "in place of the key, for Key_Shared"
        }
        ("MessageMetadata", "uuid") => "the same for all chunks of a message",
        ("MessageMetadata", "num_chunks_from_msg") => "chunks in the message",
        ("MessageMetadata", "chunk_id") => "place of the chunk, from 0",
        ("MessageMetadata", "total_chunk_msg_size") => "of the whole message, bytes",
        ("MessageMetadata", "encryption_param") => "the initialisation vector",
        ("MessageMetadata", "replicated_from") => "the cluster where it was first published",
        ("EncryptionKeys", "key") => "name of the key that encrypted the data key",
        ("EncryptionKeys", "value") => "the encrypted data key",
        ("SingleMessageMetadata", "payload_size") => "bytes of the payload that follows",
        ("BrokerEntryMetadata", "index") => "of the last message in the entry, counted from the topic's first",
        ("MessageIdData", "batch_index") => "place in the batch, from 0",
        ("MessageIdData", "batch_size") => "messages in the batch",
        ("Schema", "schema_data") => "the definition",
        _ => "",
    };
    let text = match field {
        _ if !own.is_empty() => own,
        "request_id" => "the answer has it again",
        "producer_id" | "consumer_id" | "watcher_id" => "chosen by the client",
        "auth_data" | "original_auth_data" => "a credential, not shown",
        "txnid_most_bits" => "the coordinator's number",
        "txnid_least_bits" => "the transaction's number",
        "topics_hash" => "CRC-32C of the sorted list",
        _ => return None,
    };
    Some(text)
}
