//! How a request is refused.

use crate::pb::ServerError;
use crate::wire::command::Refusal;

/// In front of the text of refusals that report this exception, as a real broker writes it. Clients read it.
pub(crate) const PRODUCER_FENCED_EXCEPTION: &str =
    "org.apache.pulsar.broker.service.BrokerServiceException$ProducerFencedException: ";
/// In front of the text where a topic or producer name is taken.
pub(crate) const PRODUCER_BUSY_EXCEPTION: &str =
    "org.apache.pulsar.broker.service.BrokerServiceException$ProducerBusyException: ";
/// In front of the text where a backlog quota is exceeded.
pub(crate) const QUOTA_EXCEEDED_EXCEPTION: &str =
    "org.apache.pulsar.broker.service.BrokerServiceException$TopicBacklogQuotaExceededException: ";
/// In front of the text where a name must not be used.
pub(crate) const NAMING_EXCEPTION: &str = "org.apache.pulsar.broker.service.BrokerServiceException$NamingException: ";

/// A refusal. It is sent in the fields that the response of the request has for it, or as ERROR.
pub(crate) fn refuse(code: ServerError, message: impl Into<String>) -> Refusal {
    Refusal { code: code.into(), message: message.into() }
}
