//! Properties of commands, and the responses that the proxy sends itself.

use super::Request;
use crate::error::ServerCode;
use crate::id::{ConsumerId, ProducerId};
use crate::machine::EndpointId;
use crate::pb;
use crate::pb::command_lookup_topic_response::LookupType;
use crate::wire::command::Command;
use crate::wire::frame::Frame;

/// Whether the command closes a producer or consumer. It is never dropped: the broker would keep the endpoint as long as the
/// connection lasts, and a client cannot prevent that.
pub(super) fn is_close(command: &Command) -> bool {
    matches!(command, Command::CloseProducer(_) | Command::CloseConsumer(_))
}

pub(super) fn is_refusable(command: &Command) -> bool {
    matches!(
        command,
        Command::Producer(_)
            | Command::Subscribe(_)
            | Command::Lookup(_)
            | Command::PartitionedMetadata(_)
            | Command::Ack(_)
            | Command::GetLastMessageId(_)
    )
}

/// The producer or consumer that a command opens.
pub(super) fn opened_by(command: &Command) -> Option<EndpointId> {
    match command {
        Command::Producer(it) => Some(EndpointId::Producer(ProducerId(it.producer_id))),
        Command::Subscribe(it) => Some(EndpointId::Consumer(ConsumerId(it.consumer_id))),
        _ => None,
    }
}

pub(super) fn read_request(command: &Command) -> Request {
    let producer = |id| Some(EndpointId::Producer(ProducerId(id)));
    let consumer = |id| Some(EndpointId::Consumer(ConsumerId(id)));
    let (endpoint, topic) = match command {
        Command::Producer(it) => (producer(it.producer_id), Some(it.topic.clone())),
        Command::CloseProducer(it) => (producer(it.producer_id), None),
        Command::Subscribe(it) => (consumer(it.consumer_id), Some(it.topic.clone())),
        Command::CloseConsumer(it) => (consumer(it.consumer_id), None),
        Command::Ack(it) => (consumer(it.consumer_id), None),
        Command::Lookup(it) => (None, Some(it.topic.clone())),
        _ => (None, None),
    };
    Request { endpoint, is_lookup: matches!(command, Command::Lookup(_)), topic }
}

/// The producer or consumer that a frame of the broker is for, where it is not the response to a request.
pub(super) fn endpoint_of(frame: &Frame) -> Option<EndpointId> {
    let producer = |id| Some(EndpointId::Producer(ProducerId(id)));
    let consumer = |id| Some(EndpointId::Consumer(ConsumerId(id)));
    match frame {
        Frame::Receipt(receipt) => producer(receipt.producer_id),
        Frame::Message { head, .. } => consumer(head.consumer_id),
        Frame::Other(Command::SendError(it)) => producer(it.producer_id),
        Frame::Other(Command::CloseProducer(it)) => producer(it.producer_id),
        Frame::Other(Command::CloseConsumer(it)) => consumer(it.consumer_id),
        Frame::Other(Command::ActiveConsumerChange(it)) => consumer(it.consumer_id),
        Frame::Other(Command::ReachedEndOfTopic(it)) => consumer(it.consumer_id),
        _ => None,
    }
}

/// Why a frame of the broker refuses, if it does.
pub(super) fn refusal_code(frame: &Frame) -> Option<ServerCode> {
    match frame {
        Frame::Other(Command::SendError(it)) => Some(ServerCode(it.error)),
        Frame::Other(command) => command.refusal().map(|refusal| ServerCode(refusal.code)),
        _ => None,
    }
}

pub(super) fn lookup_response(request_id: u64, kind: LookupType, broker: &str, authoritative: bool) -> Command {
    let response = pb::CommandLookupTopicResponse {
        broker_service_url: Some(broker.to_owned()),
        response: Some(kind.into()),
        request_id,
        authoritative: Some(authoritative),
        ..Default::default()
    };
    response.into()
}

pub(super) fn refusal(command: &Command, request_id: u64, code: ServerCode, text: &str) -> Command {
    let message = text.to_owned();
    match command {
        Command::Lookup(_) => pb::CommandLookupTopicResponse {
            response: Some(LookupType::Failed.into()),
            request_id,
            error: Some(code.0),
            message: Some(message),
            ..Default::default()
        }
        .into(),
        Command::PartitionedMetadata(_) => pb::CommandPartitionedTopicMetadataResponse {
            request_id,
            response: Some(pb::command_partitioned_topic_metadata_response::LookupType::Failed.into()),
            error: Some(code.0),
            message: Some(message),
            ..Default::default()
        }
        .into(),
        Command::Ack(ack) => pb::CommandAckResponse {
            consumer_id: ack.consumer_id,
            error: Some(code.0),
            message: Some(message),
            request_id: Some(request_id),
            ..Default::default()
        }
        .into(),
        _ => pb::CommandError { request_id, error: code.0, message }.into(),
    }
}
