//! How a request is refused.

use crate::pb::ServerError;
use crate::wire::command::Refusal;

/// A refusal to be handed up to where the request is answered: in the fields that its answer has for that, or as ERROR.
pub(crate) fn refuse(code: ServerError, message: impl Into<String>) -> Refusal {
    Refusal { code: code.into(), message: message.into() }
}
