//! Why a dial, lookup, open or query failed, and whether it is tried again.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, RetryPolicy, ServerCode};
use crate::machine::connection::error::RequestError;
use crate::machine::control::CloseReason;
use crate::wire::command::Command;

/// A failed dial, lookup or open.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// What the application gets if nothing is tried again.
    pub(crate) error: Error,
    /// Which endpoints try again.
    pub(crate) retry_policy: RetryPolicy,
    /// Whether it counts against its connection: no answer, or a broker that cannot answer. After enough of these in a
    /// row the connection is replaced.
    pub(crate) counts_against_connection: bool,
}

impl Failure {
    /// Trying again can help.
    pub(crate) fn retriable(error: Error) -> Self {
        Self { error, retry_policy: RetryPolicy::Retry, counts_against_connection: false }
    }

    /// Only a change of the configuration, here or at the broker, can help. An endpoint that has been attached waits for it.
    pub(crate) fn until_configured(error: Error) -> Self {
        Self { error, retry_policy: RetryPolicy::RetryIfEstablished, counts_against_connection: false }
    }

    /// A request was refused or not answered; `request` names what was asked for.
    pub(crate) fn of_request(error: RequestError, request: &str) -> Self {
        let (retry_policy, counts_against_connection) = match &error {
            RequestError::Server(error) => (
                error.code.retry_policy(),
                matches!(error.code, ServerCode::SERVICE_NOT_READY | ServerCode::TOO_MANY_REQUESTS),
            ),
            RequestError::TimedOut => (RetryPolicy::Retry, true),
            RequestError::Disconnected => (RetryPolicy::Retry, false),
            RequestError::Unsupported(_) | RequestError::TooLarge { .. } => (RetryPolicy::RetryIfEstablished, false),
            RequestError::Transport(error) => (of_local(error), false),
        };
        Self { error: error.into_error(request), retry_policy, counts_against_connection }
    }

    /// A response of the wrong type; `request` names what was asked for.
    pub(crate) fn of_wrong_response(response: &Command, request: &str) -> Self {
        let text = format!("the broker answered {} to {request}", response.name());
        Self { error: Error::protocol(text), retry_policy: RetryPolicy::Retry, counts_against_connection: true }
    }

    /// A connection ended. One that had been up was simply lost, whatever the reason given: the next handshake shows
    /// whether the reason lasts.
    pub(crate) fn of_connection(reason: &CloseReason, was_up: bool, address: &Arc<str>) -> Self {
        let retry_policy = match reason {
            _ if was_up => RetryPolicy::Retry,
            CloseReason::Broker(error) => error.code.retry_policy(),
            // What a socket knows to be final: the peer does not accept the client's certificate.
            CloseReason::Dial(error) | CloseReason::Io(error) => of_local(error),
            CloseReason::Local(_)
            | CloseReason::ProtocolViolation(_)
            | CloseReason::Silent { .. }
            | CloseReason::ClusterSwitched => RetryPolicy::Retry,
        };
        Self { error: reason.to_error(address), retry_policy, counts_against_connection: false }
    }

    /// The credentials could not be fetched. A source can fail for a moment, as a file does that is being replaced:
    /// endpoints that have been attached try again.
    pub(crate) fn of_credentials(error: Error) -> Self {
        let retry_policy = of_local(&error);
        Self { error, retry_policy, counts_against_connection: false }
    }

    /// Whether it ends an endpoint that has (`established`) or has not been attached before.
    pub(crate) fn is_final(&self, established: bool) -> bool {
        match self.retry_policy {
            RetryPolicy::Retry => false,
            RetryPolicy::RetryIfEstablished if mutation!(RefusalOfNewIsRetried) => false,
            RetryPolicy::RetryIfEstablished => !established || mutation!(RefusalEndsEstablished),
            RetryPolicy::Terminal => true,
        }
    }
}

/// Whether the broker refused the credentials, so that fresh ones may help.
pub(crate) fn refuses_credentials(reason: &CloseReason) -> bool {
    match reason {
        CloseReason::Broker(error) => error.code == ServerCode::AUTHENTICATION_ERROR,
        CloseReason::Dial(error) | CloseReason::Io(error) => error.kind() == ErrorKind::Authentication,
        _ => false,
    }
}

fn of_local(error: &Error) -> RetryPolicy {
    match error.server_error() {
        Some(error) => error.code.retry_policy(),
        None if error.is_retriable() => RetryPolicy::Retry,
        None => RetryPolicy::RetryIfEstablished,
    }
}
