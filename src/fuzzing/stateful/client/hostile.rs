//! What a broker does that it should not.

use super::*;
use crate::pb::{self, MessageIdData};
use crate::wire::command::Command;

/// What happens to the next frame on its way to the client.
pub(super) enum Mangle {
    Pass,
    Drop,
    Twice,
    /// A bit flips.
    Flip(usize, u8),
    /// It ends in the middle.
    Cut(usize),
    /// These bytes come before it.
    Behind(Vec<u8>),
    /// It comes behind the next one.
    Swap,
    /// It comes ahead of this one, which was held.
    Ahead(Vec<u8>),
}

impl Mangle {
    pub(super) fn any(choices: &mut Choices<'_>) -> Self {
        match choices.below(9) {
            0 | 1 => Self::Pass,
            2 | 3 => Self::Drop,
            4 => Self::Twice,
            5 => Self::Flip(usize::from(choices.byte()), choices.below(8) as u8),
            6 => Self::Cut(usize::from(choices.byte())),
            7 => Self::Behind(choices.bytes().to_vec()),
            _ => Self::Swap,
        }
    }
}

/// What comes instead of a frame.
pub(super) fn mangled(mangles: &mut VecDeque<Mangle>, frame: &[u8]) -> Vec<Vec<u8>> {
    let whole = frame.to_vec();
    match mangles.pop_front() {
        None | Some(Mangle::Pass) => vec![whole],
        Some(Mangle::Drop) => Vec::new(),
        Some(Mangle::Twice) => vec![whole.clone(), whole],
        Some(Mangle::Flip(at, bit)) => {
            let mut flipped = whole;
            let len = flipped.len().max(1);
            if let Some(byte) = flipped.get_mut(at % len) {
                *byte ^= 1 << bit;
            }
            vec![flipped]
        }
        Some(Mangle::Cut(at)) => vec![whole[..at.min(whole.len())].to_vec()],
        Some(Mangle::Behind(bytes)) => vec![bytes, whole],
        Some(Mangle::Swap) => {
            mangles.push_front(Mangle::Ahead(whole));
            Vec::new()
        }
        Some(Mangle::Ahead(held)) => vec![whole, held],
    }
}

const URLS: [&str; 6] =
    ["pulsar://broker:6650", "pulsar://other:6650", "pulsar+ssl://broker:6651", "http://b", "no URL", ""];

fn url(choices: &mut Choices<'_>) -> Option<String> {
    choices.flag().then(|| (*choices.pick(&URLS)).to_owned())
}

fn id(choices: &mut Choices<'_>) -> MessageIdData {
    MessageIdData { ledger_id: choices.number(), entry_id: choices.number(), ..Default::default() }
}

/// The code of an error, known or not.
fn code(choices: &mut Choices<'_>) -> i32 {
    choices.below(40) as i32 - 2
}

fn topics(choices: &mut Choices<'_>) -> Vec<String> {
    vec![application::TOPIC.to_owned(); choices.below(3)]
}

/// An answer or announcement of a broker, of the right form, mostly to the last request.
pub(super) fn any_answer(choices: &mut Choices<'_>, last_request: u64) -> Command {
    match choices.below(3) {
        0 => any_announcement(choices),
        1 => any_answer_to_endpoint(choices, last_request),
        _ => {
            let request_id = if choices.below(4) < 3 { last_request } else { choices.number() };
            any_answer_of_cluster(choices, request_id)
        }
    }
}

fn any_answer_of_cluster(choices: &mut Choices<'_>, request_id: u64) -> Command {
    match choices.below(9) {
        0 => pb::CommandConnected {
            server_version: "lies".to_owned(),
            protocol_version: choices.flag().then(|| choices.number() as i32),
            max_message_size: choices.flag().then(|| choices.number() as i32),
            ..Default::default()
        }
        .into(),
        1..=3 => pb::CommandLookupTopicResponse {
            broker_service_url: url(choices),
            broker_service_url_tls: url(choices),
            response: Some(choices.below(4) as i32),
            request_id,
            authoritative: Some(choices.flag()),
            error: choices.flag().then(|| code(choices)),
            proxy_through_service_url: Some(choices.flag()),
            ..Default::default()
        }
        .into(),
        4 => pb::CommandPartitionedTopicMetadataResponse {
            partitions: choices.flag().then(|| choices.number() as u32),
            request_id,
            response: Some(choices.below(3) as i32),
            error: choices.flag().then(|| code(choices)),
            ..Default::default()
        }
        .into(),
        5 => {
            let error_code = choices.flag().then(|| code(choices));
            pb::CommandGetSchemaResponse { request_id, error_code, ..Default::default() }.into()
        }
        6 => {
            pb::CommandGetTopicsOfNamespaceResponse { request_id, topics: topics(choices), ..Default::default() }.into()
        }
        7 => pb::CommandError { request_id, error: code(choices), message: "said the broker".to_owned() }.into(),
        _ => pb::CommandGetOrCreateSchemaResponse { request_id, ..Default::default() }.into(),
    }
}

fn any_answer_to_endpoint(choices: &mut Choices<'_>, last_request: u64) -> Command {
    let request_id = if choices.below(4) < 3 { last_request } else { choices.number() };
    match choices.below(8) {
        0 | 1 => pb::CommandProducerSuccess {
            request_id,
            producer_name: choices.pick(&["made-up", "", "standalone-0-1"]).to_string(),
            last_sequence_id: choices.flag().then(|| choices.number() as i64),
            schema_version: choices.flag().then(|| Bytes::copy_from_slice(choices.bytes())),
            topic_epoch: choices.flag().then(|| choices.number()),
            producer_ready: choices.flag().then(|| choices.flag()),
        }
        .into(),
        2 => pb::CommandSuccess { request_id, schema: None }.into(),
        3 => pb::CommandError { request_id, error: code(choices), message: "said the broker".to_owned() }.into(),
        4 => pb::CommandGetLastMessageIdResponse {
            last_message_id: id(choices),
            request_id,
            consumer_mark_delete_position: choices.flag().then(|| id(choices)),
        }
        .into(),
        5 => pb::CommandAckResponse {
            consumer_id: choices.below(4) as u64,
            request_id: choices.flag().then_some(request_id),
            error: choices.flag().then(|| code(choices)),
            ..Default::default()
        }
        .into(),
        6 => pb::CommandConsumerStatsResponse {
            request_id,
            error_code: choices.flag().then(|| code(choices)),
            msg_backlog: Some(choices.number()),
            ..Default::default()
        }
        .into(),
        _ => pb::CommandWatchTopicListSuccess {
            request_id,
            watcher_id: choices.below(4) as u64,
            topic: topics(choices),
            topics_hash: "lies".to_owned(),
        }
        .into(),
    }
}

fn any_announcement(choices: &mut Choices<'_>) -> Command {
    let (producer_id, consumer_id) = (choices.below(4) as u64, choices.below(4) as u64);
    match choices.below(11) {
        0 | 1 => pb::CommandSendReceipt {
            producer_id,
            sequence_id: choices.number(),
            message_id: choices.flag().then(|| id(choices)),
            highest_sequence_id: choices.flag().then(|| choices.number()),
        }
        .into(),
        2 => {
            let (sequence_id, message) = (choices.number(), "said the broker".to_owned());
            pb::CommandSendError { producer_id, sequence_id, error: code(choices), message }.into()
        }
        3 => pb::CommandCloseProducer {
            producer_id,
            assigned_broker_service_url: url(choices),
            assigned_broker_service_url_tls: url(choices),
            ..Default::default()
        }
        .into(),
        4 => pb::CommandCloseConsumer {
            consumer_id,
            assigned_broker_service_url: url(choices),
            assigned_broker_service_url_tls: url(choices),
            ..Default::default()
        }
        .into(),
        5 => pb::CommandActiveConsumerChange { consumer_id, is_active: Some(choices.flag()) }.into(),
        6 => pb::CommandReachedEndOfTopic { consumer_id }.into(),
        7 => pb::CommandTopicMigrated {
            resource_id: choices.below(4) as u64,
            resource_type: choices.below(3) as i32,
            broker_service_url: url(choices),
            broker_service_url_tls: url(choices),
        }
        .into(),
        8 => pb::CommandAuthChallenge::default().into(),
        9 => pb::CommandWatchTopicUpdate {
            watcher_id: choices.below(4) as u64,
            new_topics: topics(choices),
            deleted_topics: vec![String::from_utf8_lossy(choices.bytes()).into_owned(); choices.below(2)],
            topics_hash: "lies".to_owned(),
        }
        .into(),
        _ if choices.flag() => pb::CommandPing {}.into(),
        _ => pb::CommandPong {}.into(),
    }
}
