//! The broker's error codes (`ServerError` of `PulsarApi.proto`) and what each means for a retry.

use std::fmt;

use super::ErrorKind;

/// The name of any other code.
const UNKNOWN: &str = "unknown code";

/// An error code of the broker. Codes this library does not know survive as numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServerCode(pub i32);

/// What a client does about a refusal when it opens a producer or consumer, or looks a topic up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetryPolicy {
    /// Try again after a back-off.
    Retry,
    /// Terminal for a first attempt. An endpoint that was attached before keeps trying: the broker may still count its
    /// attachment over a dead connection.
    RetryIfEstablished,
    /// Final, for a new endpoint and for an established one.
    Terminal,
}

macro_rules! codes {
    ($($code:literal $constant:ident $name:literal $kind:ident $policy:ident;)*) => {
        impl ServerCode {
            $(#[doc = concat!("`", $name, "` of the protocol.")] pub const $constant: Self = Self($code);)*

            /// The protocol's name of the code; `unknown code` for one that this library does not know.
            pub fn name(self) -> &'static str {
                match self.0 { $($code => $name,)* _ => UNKNOWN }
            }

            /// Its name, and for one that this library does not know its number: what tells all codes apart.
            pub(crate) fn label(self) -> String {
                match self.name() {
                    UNKNOWN => format!("ServerError {}", self.0),
                    name => name.to_owned(),
                }
            }

            /// The kind of [`Error`](super::Error) it becomes.
            pub fn kind(self) -> ErrorKind {
                match self.0 { $($code => ErrorKind::$kind,)* _ => ErrorKind::Server }
            }

            /// What a client does about it. Unknown codes are retried.
            pub(crate) fn retry_policy(self) -> RetryPolicy {
                match self.0 { $($code => RetryPolicy::$policy,)* _ => RetryPolicy::Retry }
            }
        }
    };
}

// As the Java client does (`PulsarClientException.isRetriableError`, `ProducerImpl`, `ConsumerImpl`), with one difference:
// at the first attempt it also retries AuthenticationError, UnsupportedVersionError and InvalidTopicName until the
// operation timeout, because they are not in its list. They are reported at once here: waiting does not fix them.
codes! {
    0 UNKNOWN_ERROR "UnknownError" Server Retry;
    1 METADATA_ERROR "MetadataError" Server Retry;
    2 PERSISTENCE_ERROR "PersistenceError" Server Retry;
    3 AUTHENTICATION_ERROR "AuthenticationError" Authentication RetryIfEstablished;
    4 AUTHORIZATION_ERROR "AuthorizationError" Authorization RetryIfEstablished;
    5 CONSUMER_BUSY "ConsumerBusy" Busy RetryIfEstablished;
    6 SERVICE_NOT_READY "ServiceNotReady" NotReady Retry;
    7 PRODUCER_BLOCKED_QUOTA_EXCEEDED_ERROR "ProducerBlockedQuotaExceededError" BacklogQuotaExceeded Retry;
    8 PRODUCER_BLOCKED_QUOTA_EXCEEDED_EXCEPTION "ProducerBlockedQuotaExceededException" BacklogQuotaExceeded Retry;
    9 CHECKSUM_ERROR "ChecksumError" Server Retry;
    10 UNSUPPORTED_VERSION_ERROR "UnsupportedVersionError" Unsupported RetryIfEstablished;
    11 TOPIC_NOT_FOUND "TopicNotFound" TopicNotFound Terminal;
    12 SUBSCRIPTION_NOT_FOUND "SubscriptionNotFound" SubscriptionNotFound RetryIfEstablished;
    13 CONSUMER_NOT_FOUND "ConsumerNotFound" Server Retry;
    14 TOO_MANY_REQUESTS "TooManyRequests" Quota Retry;
    15 TOPIC_TERMINATED_ERROR "TopicTerminatedError" TopicTerminated Terminal;
    16 PRODUCER_BUSY "ProducerBusy" Busy RetryIfEstablished;
    17 INVALID_TOPIC_NAME "InvalidTopicName" InvalidArgument RetryIfEstablished;
    18 INCOMPATIBLE_SCHEMA "IncompatibleSchema" IncompatibleSchema RetryIfEstablished;
    19 CONSUMER_ASSIGN_ERROR "ConsumerAssignError" Busy RetryIfEstablished;
    20 TRANSACTION_COORDINATOR_NOT_FOUND "TransactionCoordinatorNotFound" NotReady Retry;
    21 INVALID_TXN_STATUS "InvalidTxnStatus" NotAllowed RetryIfEstablished;
    22 NOT_ALLOWED_ERROR "NotAllowedError" NotAllowed RetryIfEstablished;
    23 TRANSACTION_CONFLICT "TransactionConflict" Busy RetryIfEstablished;
    24 TRANSACTION_NOT_FOUND "TransactionNotFound" NotAllowed RetryIfEstablished;
    25 PRODUCER_FENCED "ProducerFenced" Fenced Terminal;
}

impl fmt::Debug for ServerCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

/// A refusal of the broker: its code and its text.
///
/// The text is free-form and often starts with a Java class name; decide by the code.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerError {
    /// The code (`ServerError` of the protocol).
    pub code: ServerCode,
    /// The broker's text, as it came.
    pub message: String,
}

impl ServerError {
    /// A refusal with the broker's code and text.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code: ServerCode(code), message: message.into() }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code.name() {
            UNKNOWN => write!(f, "{UNKNOWN} {}", self.code.0)?,
            name => f.write_str(name)?,
        }
        match self.message.trim() {
            "" => Ok(()),
            text => write!(f, " ({text})"),
        }
    }
}

impl std::error::Error for ServerError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_codes_survive_and_are_retried() {
        let error = ServerError::new(77, "new in some version");
        assert_eq!(error.code.retry_policy(), RetryPolicy::Retry);
        assert_eq!(error.to_string(), "unknown code 77 (new in some version)");
    }

    #[test]
    fn an_established_producer_outlasts_its_own_dead_connection() {
        assert_eq!(ServerCode::PRODUCER_BUSY.retry_policy(), RetryPolicy::RetryIfEstablished);
        assert_eq!(ServerCode::PRODUCER_FENCED.retry_policy(), RetryPolicy::Terminal);
    }
}
