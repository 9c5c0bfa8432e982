//! Each command in a phrase, where the book tells of it, and which fields are credentials.

/// What a command is for.
#[derive(Debug)]
pub(super) struct CommandInfo {
    pub(super) number: i32,
    pub(super) name: &'static str,
    pub(super) phrase: &'static str,
    /// Path and heading in the repository.
    pub(super) chapter: &'static str,
    /// Credentials may be in it: bytes that cannot be told apart are not shown.
    pub(super) is_guarded: bool,
}

/// The path of a file of the book.
macro_rules! book {
    ($place:literal) => {
        concat!("docs/protocol/", $place)
    };
}

macro_rules! commands {
    ($( $number:literal $name:literal $chapter:literal $phrase:literal $($guarded:ident)?; )*) => {
        /// In the order of their numbers.
        pub(super) static COMMANDS: &[CommandInfo] = &[ $( CommandInfo {
            number: $number,
            name: $name,
            phrase: $phrase,
            chapter: book!($chapter),
            is_guarded: commands!(@guarded $($guarded)?),
        }, )* ];
    };
    (@guarded guarded) => { true };
    (@guarded) => { false };
}

commands! {
    2 "CONNECT" "02-handshake.md#connect" "the client opens the connection and shows who it is" guarded;
    3 "CONNECTED" "02-handshake.md#connected" "the broker accepts the connection";
    4 "SUBSCRIBE" "06-flow.md#subscribe" "the client attaches a consumer to a subscription";
    5 "PRODUCER" "04-send.md#producer" "the client creates a producer";
    6 "SEND" "04-send.md#send" "the client publishes an entry: a message, a batch or a chunk";
    7 "SEND_RECEIPT" "04-send.md#send_receipt" "the broker has stored an entry";
    8 "SEND_ERROR" "04-send.md#send_error" "the broker has not stored an entry";
    9 "MESSAGE" "06-flow.md#message" "the broker delivers an entry to a consumer";
    10 "ACK" "07-acknowledgement.md#ack" "the client has processed messages";
    11 "FLOW" "06-flow.md#flow" "the client lets the broker send more messages to a consumer";
    12 "UNSUBSCRIBE" "06-flow.md#unsubscribe" "the client deletes a subscription";
    13 "SUCCESS" "02-handshake.md#success" "the broker has done what a request asked for";
    14 "ERROR" "02-handshake.md#error" "the broker refuses a request, or the connection";
    15 "CLOSE_PRODUCER" "04-send.md#close_producer" "a producer ends, by the client's or the broker's wish";
    16 "CLOSE_CONSUMER" "06-flow.md#close_consumer" "a consumer ends, by the client's or the broker's wish";
    17 "PRODUCER_SUCCESS" "04-send.md#producer_success" "the broker has created a producer";
    18 "PING" "02-handshake.md#ping" "are you there? asked by either side";
    19 "PONG" "02-handshake.md#pong" "the answer to PING";
    20 "REDELIVER_UNACKNOWLEDGED_MESSAGES" "08-redelivery.md#redeliver_unacknowledged_messages"
        "the client wants messages again that it has not acknowledged";
    21 "PARTITIONED_METADATA" "03-lookup.md#partitioned_metadata" "the client asks how many partitions a topic has" guarded;
    22 "PARTITIONED_METADATA_RESPONSE" "03-lookup.md#partitioned_metadata_response" "how many partitions a topic has";
    23 "LOOKUP" "03-lookup.md#lookup" "the client asks which broker serves a topic" guarded;
    24 "LOOKUP_RESPONSE" "03-lookup.md#lookup_response" "which broker serves a topic, or whom to ask";
    25 "CONSUMER_STATS" "06-flow.md#consumer_stats" "the client asks for the statistics of a consumer";
    26 "CONSUMER_STATS_RESPONSE" "06-flow.md#consumer_stats_response" "the statistics of a consumer";
    27 "REACHED_END_OF_TOPIC" "06-flow.md#reached_end_of_topic" "a consumer has all of a topic that takes no more";
    28 "SEEK" "08-redelivery.md#seek" "the client moves the position of a subscription";
    29 "GET_LAST_MESSAGE_ID" "08-redelivery.md#get_last_message_id" "the client asks for the last message of a topic";
    30 "GET_LAST_MESSAGE_ID_RESPONSE" "08-redelivery.md#get_last_message_id_response" "the last message of a topic";
    31 "ACTIVE_CONSUMER_CHANGE" "06-flow.md#active_consumer_change" "whether a consumer of a Failover subscription is the active one";
    32 "GET_TOPICS_OF_NAMESPACE" "14-topic-watch.md#get_topics_of_namespace" "the client asks for the topics of a namespace";
    33 "GET_TOPICS_OF_NAMESPACE_RESPONSE" "14-topic-watch.md#get_topics_of_namespace_response" "the topics of a namespace";
    34 "GET_SCHEMA" "12-schemas.md#get_schema" "the client asks for the schema of a topic";
    35 "GET_SCHEMA_RESPONSE" "12-schemas.md#get_schema_response" "the schema of a topic";
    36 "AUTH_CHALLENGE" "02-handshake.md#auth_challenge" "the broker asks for a credential, or for a fresh one" guarded;
    37 "AUTH_RESPONSE" "02-handshake.md#auth_response" "the client shows the credential that was asked for" guarded;
    38 "ACK_RESPONSE" "07-acknowledgement.md#ack_response" "the answer to an ACK that asked for one";
    39 "GET_OR_CREATE_SCHEMA" "12-schemas.md#get_or_create_schema" "the client registers a schema";
    40 "GET_OR_CREATE_SCHEMA_RESPONSE" "12-schemas.md#get_or_create_schema_response" "the version of a registered schema";
    50 "NEW_TXN" "13-transactions.md#new_txn" "the client opens a transaction";
    51 "NEW_TXN_RESPONSE" "13-transactions.md#new_txn_response" "the id of a new transaction";
    52 "ADD_PARTITION_TO_TXN" "13-transactions.md#add_partition_to_txn" "a transaction is about to write to topics";
    53 "ADD_PARTITION_TO_TXN_RESPONSE" "13-transactions.md#add_partition_to_txn_response" "the answer to ADD_PARTITION_TO_TXN";
    54 "ADD_SUBSCRIPTION_TO_TXN" "13-transactions.md#add_subscription_to_txn"
        "a transaction is about to acknowledge on subscriptions";
    55 "ADD_SUBSCRIPTION_TO_TXN_RESPONSE" "13-transactions.md#add_subscription_to_txn_response"
        "the answer to ADD_SUBSCRIPTION_TO_TXN";
    56 "END_TXN" "13-transactions.md#end_txn" "the client commits or aborts a transaction";
    57 "END_TXN_RESPONSE" "13-transactions.md#end_txn_response" "the answer to END_TXN";
    58 "END_TXN_ON_PARTITION" "13-transactions.md#end_txn_on_partition" "a broker tells another how a transaction ends on a topic";
    59 "END_TXN_ON_PARTITION_RESPONSE" "13-transactions.md#end_txn_on_partition_response" "the answer to END_TXN_ON_PARTITION";
    60 "END_TXN_ON_SUBSCRIPTION" "13-transactions.md#end_txn_on_subscription"
        "a broker tells another how a transaction ends on a subscription";
    61 "END_TXN_ON_SUBSCRIPTION_RESPONSE" "13-transactions.md#end_txn_on_subscription_response"
        "the answer to END_TXN_ON_SUBSCRIPTION";
    62 "TC_CLIENT_CONNECT_REQUEST" "13-transactions.md#tc_client_connect_request"
        "the client opens a session with a transaction coordinator";
    63 "TC_CLIENT_CONNECT_RESPONSE" "13-transactions.md#tc_client_connect_response" "the answer to TC_CLIENT_CONNECT_REQUEST";
    64 "WATCH_TOPIC_LIST" "14-topic-watch.md#watch_topic_list" "the client wants to hear of topics that come and go";
    65 "WATCH_TOPIC_LIST_SUCCESS" "14-topic-watch.md#watch_topic_list_success" "the topics of a watcher as they are now";
    66 "WATCH_TOPIC_UPDATE" "14-topic-watch.md#watch_topic_update" "topics of a watcher have come or gone";
    67 "WATCH_TOPIC_LIST_CLOSE" "14-topic-watch.md#watch_topic_list_close" "the client ends a watcher";
    68 "TOPIC_MIGRATED" "15-migration.md#topic_migrated" "a topic lives on another cluster now";
}

pub(super) fn of_type(number: i32) -> Option<&'static CommandInfo> {
    COMMANDS.iter().find(|command| command.number == number)
}

pub(super) fn of_name(name: &str) -> Option<&'static CommandInfo> {
    COMMANDS.iter().find(|command| command.name == name)
}

/// Whether a field is a credential.
pub(super) fn is_secret(message: &str, field: &str) -> bool {
    match field {
        "auth_data" => matches!(message, "CommandConnect" | "AuthData"),
        "original_auth_data" => true,
        _ => false,
    }
}

/// Parts of a frame and of its messages that the book tells of apart from the command: the start of their path.
static PARTS: &[(&str, &str)] = &[
    ("total_size", book!("01-frames.md#total_size")),
    ("command_size", book!("01-frames.md#command_size")),
    ("BaseCommand.", book!("01-frames.md#basecommand")),
    ("magic", book!("01-frames.md#checksum")),
    ("checksum", book!("01-frames.md#checksum")),
    ("broker_entry_metadata_size", book!("01-frames.md#brokerentrymetadata")),
    ("BrokerEntryMetadata.", book!("01-frames.md#brokerentrymetadata")),
    ("metadata_size", book!("04-send.md#messagemetadata")),
    ("MessageMetadata.compression", book!("05-batching.md#compressiontype")),
    ("MessageMetadata.uncompressed_size", book!("05-batching.md#compressiontype")),
    ("MessageMetadata.num_messages_in_batch", book!("05-batching.md#singlemessagemetadata")),
    ("MessageMetadata.highest_sequence_id", book!("05-batching.md#singlemessagemetadata")),
    ("MessageMetadata.encryption_", book!("11-encryption.md#encryptionkeys")),
    ("MessageMetadata.uuid", book!("10-chunking.md")),
    ("MessageMetadata.num_chunks_from_msg", book!("10-chunking.md")),
    ("MessageMetadata.total_chunk_msg_size", book!("10-chunking.md")),
    ("MessageMetadata.chunk_id", book!("10-chunking.md")),
    ("MessageMetadata.schema_", book!("12-schemas.md#schema")),
    ("MessageMetadata.txnid_", book!("13-transactions.md")),
    ("MessageMetadata.properties", book!("04-send.md#keyvalue")),
    ("MessageMetadata.", book!("04-send.md#messagemetadata")),
    ("records", book!("05-batching.md#singlemessagemetadata")),
    ("payload", book!("01-frames.md#payload")),
    ("CommandConnect.feature_flags", book!("02-handshake.md#featureflags")),
    ("CommandConnected.feature_flags", book!("02-handshake.md#featureflags")),
    ("CommandSubscribe.keySharedMeta", book!("06-flow.md#keysharedmeta")),
    ("CommandSubscribe.schema", book!("12-schemas.md#schema")),
    ("CommandProducer.schema", book!("12-schemas.md#schema")),
];

/// Fields that the book tells of wherever they are: the last part of their path, without an index.
static FIELDS: &[(&str, &str)] = &[
    ("ack_set", book!("07-acknowledgement.md#ack_set")),
    ("message_id", book!("07-acknowledgement.md#messageiddata")),
    ("message_ids", book!("07-acknowledgement.md#messageiddata")),
    ("ledgerId", book!("07-acknowledgement.md#messageiddata")),
    ("entryId", book!("07-acknowledgement.md#messageiddata")),
    ("batch_index", book!("07-acknowledgement.md#messageiddata")),
    ("error", book!("09-reconnect.md#servererror")),
    ("error_code", book!("09-reconnect.md#servererror")),
    ("txnid_least_bits", book!("13-transactions.md")),
    ("txnid_most_bits", book!("13-transactions.md")),
];

/// Where the book tells of a field, if not with its command.
pub(super) fn chapter_of(path: &str) -> Option<&'static str> {
    let part = PARTS.iter().find(|(start, _)| path.starts_with(start));
    let last = path.rsplit('.').next().unwrap_or_default();
    let field = last.split('[').next().unwrap_or_default();
    part.or_else(|| FIELDS.iter().find(|(name, _)| *name == field)).map(|(_, chapter)| *chapter)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::wire::Command;

    #[test]
    fn every_command_has_its_phrase() {
        let known: Vec<_> = (0..200).filter(|number| Command::is_known(*number)).collect();
        assert_eq!(COMMANDS.iter().map(|command| command.number).collect::<Vec<_>>(), known);
    }

    /// A published package has no book.
    #[test]
    fn every_link_leads_to_a_heading_of_the_book() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        if !root.join("docs/protocol").is_dir() {
            return;
        }
        let mut chapters = BTreeMap::new();
        let links = COMMANDS.iter().map(|command| command.chapter);
        for link in links.chain(PARTS.iter().chain(FIELDS).map(|(_, chapter)| *chapter)) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let text = chapters.entry(file).or_insert_with(|| fs::read_to_string(root.join(file)).expect(file));
            let place = format!("<a id=\"{heading}\"></a>");
            let is_there = |line: &str| {
                let is_heading = line.starts_with('#');
                line == place || is_heading && line.trim_start_matches('#').trim().to_lowercase() == heading
            };
            assert!(heading.is_empty() || text.lines().any(is_there), "{link}");
        }
    }
}
