//! Why a request is answered with an error.

use crate::pb::ServerError;

/// The code and the text of an error answer, in whatever command the request is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ServerError,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(code: ServerError, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}
