//! Which command answers which, and where each answer carries its refusal.

use crate::error::ServerError;
use crate::machine::connection::peer::ProtocolViolation;
use crate::pb;
use crate::pb::base_command::Type;
use crate::wire::command::Command;

/// The command that answers `request`; `None` if nothing does.
pub(crate) fn expected_answer(request: &Command) -> Option<Type> {
    Some(match request {
        Command::Producer(_) => Type::ProducerSuccess,
        Command::Subscribe(_)
        | Command::Unsubscribe(_)
        | Command::Seek(_)
        | Command::CloseProducer(_)
        | Command::CloseConsumer(_) => Type::Success,
        Command::PartitionedMetadata(_) => Type::PartitionedMetadataResponse,
        Command::Lookup(_) => Type::LookupResponse,
        Command::ConsumerStats(_) => Type::ConsumerStatsResponse,
        Command::GetLastMessageId(_) => Type::GetLastMessageIdResponse,
        Command::GetTopicsOfNamespace(_) => Type::GetTopicsOfNamespaceResponse,
        Command::GetSchema(_) => Type::GetSchemaResponse,
        Command::Ack(ack) if ack.request_id.is_some() => Type::AckResponse,
        _ => return None,
    })
}

/// The answer as the asker wants it: the command, or the refusal it carries. A command of the wrong kind is the
/// peer's violation.
pub(crate) fn answer_of(command: Command, expects: Type) -> Result<Result<Command, ServerError>, ProtocolViolation> {
    let refusal = match (&command, expects) {
        (Command::Error(error), _) => Some(ServerError::new(error.error, error.message.clone())),
        (Command::Success(_), Type::Success) | (Command::ProducerSuccess(_), Type::ProducerSuccess) => None,
        (Command::PartitionedMetadataResponse(response), Type::PartitionedMetadataResponse) => {
            use pb::command_partitioned_topic_metadata_response::LookupType;
            let failed = response.response != Some(LookupType::Success as i32);
            failed.then(|| refusal(response.error, response.message.as_deref()))
        }
        (Command::LookupResponse(response), Type::LookupResponse) => {
            use pb::command_lookup_topic_response::LookupType;
            let known = [Some(LookupType::Connect as i32), Some(LookupType::Redirect as i32)];
            (!known.contains(&response.response)).then(|| refusal(response.error, response.message.as_deref()))
        }
        (Command::ConsumerStatsResponse(response), Type::ConsumerStatsResponse) => {
            response.error_code.map(|code| refusal(Some(code), response.error_message.as_deref()))
        }
        (Command::GetSchemaResponse(response), Type::GetSchemaResponse) => {
            response.error_code.map(|code| refusal(Some(code), response.error_message.as_deref()))
        }
        (Command::AckResponse(response), Type::AckResponse) => {
            response.error.map(|code| refusal(Some(code), response.message.as_deref()))
        }
        (Command::GetLastMessageIdResponse(_), Type::GetLastMessageIdResponse)
        | (Command::GetTopicsOfNamespaceResponse(_), Type::GetTopicsOfNamespaceResponse) => None,
        (other, expects) => {
            return Err(ProtocolViolation::new(format!(
                "the broker answered with {} where {} belongs",
                other.name(),
                expects.as_str_name()
            )));
        }
    };
    Ok(match refusal {
        Some(error) => Err(error),
        None => Ok(command),
    })
}

fn refusal(code: Option<i32>, message: Option<&str>) -> ServerError {
    ServerError::new(code.unwrap_or(0), message.unwrap_or_default())
}
