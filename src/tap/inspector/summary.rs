//! The fields of a command, for people. Credentials are among them in no form.

use std::fmt::Write as _;
use std::sync::Arc;

use super::observation::{Endpoint, FrameObservation, ObservedError};
use crate::pb::{self, ServerError};
use crate::wire::command::Command;

/// Ids of an ACK that are named; the others are counted.
const IDS_SHOWN: usize = 4;

/// Fills what the command says itself.
pub(super) fn fill(seen: &mut FrameObservation, command: &Command) {
    seen.request_id = command.request_id().filter(|id| *id != u64::MAX);
    seen.endpoint = endpoint(command);
    seen.topic = topic(command).map(Arc::from);
    seen.error = error(command);
    match command {
        Command::Ack(ack) if ack.message_id.len() == 1 => seen.message_id = only_id(&ack.message_id),
        Command::Seek(seek) => seen.message_id = seek.message_id.as_ref().map(position),
        _ => {}
    }
    fields(&mut seen.detail, command);
}

fn position(id: &pb::MessageIdData) -> (u64, u64) {
    (id.ledger_id, id.entry_id)
}

fn only_id(ids: &[pb::MessageIdData]) -> Option<(u64, u64)> {
    ids.first().map(position)
}

fn endpoint(command: &Command) -> Option<Endpoint> {
    use pb::command_topic_migrated::ResourceType;
    let producer = Endpoint::Producer;
    let consumer = Endpoint::Consumer;
    Some(match command {
        Command::Producer(body) => producer(body.producer_id),
        Command::CloseProducer(body) => producer(body.producer_id),
        Command::SendError(body) => producer(body.producer_id),
        Command::Subscribe(body) => consumer(body.consumer_id),
        Command::CloseConsumer(body) => consumer(body.consumer_id),
        Command::Unsubscribe(body) => consumer(body.consumer_id),
        Command::Flow(body) => consumer(body.consumer_id),
        Command::Ack(body) => consumer(body.consumer_id),
        Command::AckResponse(body) => consumer(body.consumer_id),
        Command::Seek(body) => consumer(body.consumer_id),
        Command::GetLastMessageId(body) => consumer(body.consumer_id),
        Command::ConsumerStats(body) => consumer(body.consumer_id),
        Command::RedeliverUnacknowledgedMessages(body) => consumer(body.consumer_id),
        Command::ActiveConsumerChange(body) => consumer(body.consumer_id),
        Command::ReachedEndOfTopic(body) => consumer(body.consumer_id),
        Command::WatchTopicList(body) => Endpoint::Watcher(body.watcher_id),
        Command::WatchTopicListSuccess(body) => Endpoint::Watcher(body.watcher_id),
        Command::WatchTopicUpdate(body) => Endpoint::Watcher(body.watcher_id),
        Command::WatchTopicListClose(body) => Endpoint::Watcher(body.watcher_id),
        Command::TopicMigrated(body) => match body.resource_type() {
            ResourceType::Producer => producer(body.resource_id),
            ResourceType::Consumer => consumer(body.resource_id),
        },
        _ => return None,
    })
}

fn topic(command: &Command) -> Option<&str> {
    Some(match command {
        Command::Producer(body) => &body.topic,
        Command::Subscribe(body) => &body.topic,
        Command::Lookup(body) => &body.topic,
        Command::PartitionedMetadata(body) => &body.topic,
        Command::GetSchema(body) => &body.topic,
        Command::GetOrCreateSchema(body) => &body.topic,
        _ => return None,
    })
}

fn error(command: &Command) -> Option<ObservedError> {
    let (code, message) = match command {
        Command::SendError(body) => (body.error, body.message.clone()),
        _ => command.refusal().map(|refusal| (refusal.code, refusal.message))?,
    };
    let name = ServerError::try_from(code).unwrap_or(ServerError::UnknownError).as_str_name();
    Some(ObservedError { code, name, message })
}

/// Writes `name value` for each field that is there.
fn put(out: &mut String, name: &str, value: Option<impl std::fmt::Display>) {
    if let Some(value) = value {
        let space = if out.is_empty() { "" } else { " " };
        let _ = write!(out, "{space}{name} {value}");
    }
}

fn put_flag(out: &mut String, name: &str, is_set: bool) {
    if is_set {
        let space = if out.is_empty() { "" } else { " " };
        let _ = write!(out, "{space}{name}");
    }
}

fn fields(out: &mut String, command: &Command) {
    match command {
        Command::Connect(body) => {
            put(out, "version", body.protocol_version);
            put(out, "client", Some(&body.client_version));
            put(out, "authentication", body.auth_method_name.as_ref());
            put(out, "to", body.proxy_to_broker_url.as_ref());
        }
        Command::Connected(body) => {
            put(out, "version", body.protocol_version);
            put(out, "server", Some(&body.server_version));
            put(out, "max_message_size", body.max_message_size);
        }
        Command::AuthChallenge(body) => {
            put(out, "authentication", body.challenge.as_ref().and_then(|data| data.auth_method_name.as_ref()));
        }
        Command::AuthResponse(body) => {
            put(out, "authentication", body.response.as_ref().and_then(|data| data.auth_method_name.as_ref()));
        }
        Command::Producer(body) => producer(out, body),
        Command::ProducerSuccess(body) => {
            put(out, "name", Some(&body.producer_name));
            put(out, "last_sequence_id", body.last_sequence_id.filter(|id| *id >= 0));
            put_flag(out, "not ready", !body.producer_ready());
        }
        Command::Subscribe(body) => subscribe(out, body),
        Command::Flow(body) => put(out, "permits", Some(body.message_permits)),
        Command::Ack(body) => ack(out, body),
        Command::RedeliverUnacknowledgedMessages(body) => ids(out, &body.message_ids),
        Command::LookupResponse(body) => {
            put(out, "to", body.broker_service_url.as_ref());
            put(out, "tls", body.broker_service_url_tls.as_ref());
            use pb::command_lookup_topic_response::LookupType;
            put_flag(out, "redirect", body.response == Some(LookupType::Redirect as i32));
            put_flag(out, "authoritative", body.authoritative());
            put_flag(out, "through the service URL", body.proxy_through_service_url());
        }
        Command::Lookup(body) => {
            put_flag(out, "authoritative", body.authoritative());
            // The C++ client sends an empty name for none.
            put(out, "listener", body.advertised_listener_name.as_ref().filter(|name| !name.is_empty()));
        }
        Command::PartitionedMetadataResponse(body) => put(out, "partitions", body.partitions),
        Command::CloseProducer(body) => {
            put(out, "to", body.assigned_broker_service_url.as_ref());
            put(out, "tls", body.assigned_broker_service_url_tls.as_ref());
        }
        Command::CloseConsumer(body) => {
            put(out, "to", body.assigned_broker_service_url.as_ref());
            put(out, "tls", body.assigned_broker_service_url_tls.as_ref());
        }
        Command::TopicMigrated(body) => {
            put(out, "to", body.broker_service_url.as_ref());
            put(out, "tls", body.broker_service_url_tls.as_ref());
        }
        Command::ActiveConsumerChange(body) => put_flag(out, "active", body.is_active()),
        Command::GetTopicsOfNamespace(body) => put(out, "namespace", Some(&body.namespace)),
        Command::GetTopicsOfNamespaceResponse(body) => put(out, "topics", Some(body.topics.len())),
        Command::WatchTopicList(body) => {
            put(out, "namespace", Some(&body.namespace));
            put(out, "pattern", Some(&body.topics_pattern));
        }
        Command::WatchTopicListSuccess(body) => put(out, "topics", Some(body.topic.len())),
        Command::WatchTopicUpdate(body) => {
            put(out, "new", Some(body.new_topics.len()));
            put(out, "deleted", Some(body.deleted_topics.len()));
        }
        Command::Seek(body) => put(out, "time", body.message_publish_time),
        Command::GetLastMessageIdResponse(body) => {
            let id = &body.last_message_id;
            put(out, "last", Some(format_args!("{}:{}", id.ledger_id as i64, id.entry_id as i64)));
        }
        _ => {}
    }
}

fn producer(out: &mut String, body: &pb::CommandProducer) {
    put(out, "name", body.producer_name.as_ref());
    put(out, "epoch", body.epoch.filter(|epoch| *epoch > 0));
    let mode = body.producer_access_mode();
    put(out, "access", Some(mode.as_str_name()).filter(|_| mode != pb::ProducerAccessMode::Shared));
    put_flag(out, "encrypted", body.encrypted());
}

fn subscribe(out: &mut String, body: &pb::CommandSubscribe) {
    put(out, "subscription", Some(&body.subscription));
    put(out, "type", Some(body.sub_type().as_str_name()));
    put(out, "name", body.consumer_name.as_ref());
    put_flag(out, "not durable", !body.durable());
    put_flag(out, "compacted", body.read_compacted());
    let start = body.start_message_id.as_ref().map(|id| format!("{}:{}", id.ledger_id as i64, id.entry_id as i64));
    put(out, "from", start);
}

fn ack(out: &mut String, body: &pb::CommandAck) {
    put_flag(out, "cumulative", body.ack_type == pb::command_ack::AckType::Cumulative as i32);
    if body.message_id.len() != 1 {
        ids(out, &body.message_id);
    }
    let members: usize = body.message_id.iter().map(|id| id.ack_set.len()).sum();
    put_flag(out, "within a batch", members > 0);
    let error = body.validation_error.and_then(|error| pb::command_ack::ValidationError::try_from(error).ok());
    put(out, "because of", error.map(|error| error.as_str_name()));
}

fn ids(out: &mut String, ids: &[pb::MessageIdData]) {
    if ids.is_empty() {
        return put_flag(out, "all", true);
    }
    for id in ids.iter().take(IDS_SHOWN) {
        put(out, "id", Some(format_args!("{}:{}", id.ledger_id as i64, id.entry_id as i64)));
    }
    let more = ids.len().saturating_sub(IDS_SHOWN);
    put(out, "and", Some(more).filter(|more| *more > 0));
}
