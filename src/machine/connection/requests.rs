//! Responses to requests: of the type that belongs to the request, or a refusal. The table of commands
//! (`wire/command.rs`) says which is which.

use super::peer::ProtocolViolation;
use crate::error::ServerError;
use crate::pb::base_command::Type;
use crate::wire::command::Command;

/// The response as the requester wants it: the command, or the refusal it carries. A command of the wrong type is the
/// peer's violation.
pub(crate) fn check_response(
    command: Command,
    expected: Type,
) -> Result<Result<Command, ServerError>, ProtocolViolation> {
    let is_error = matches!(command, Command::Error(_));
    if !is_error && command.command_type() != expected as i32 {
        return Err(ProtocolViolation::new(format!(
            "the broker answered with {} where {} belongs",
            command.name(),
            expected.as_str_name()
        )));
    }
    Ok(match command.refusal() {
        Some(refusal) => Err(ServerError::new(refusal.code, refusal.message)),
        None => Ok(command),
    })
}
