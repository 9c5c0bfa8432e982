//! Topic to broker: LOOKUP with its redirects, and the number of partitions.
//!
//! LOOKUP comes before every PRODUCER and SUBSCRIBE, even with a single broker, because it makes a broker own the
//! topic's bundle. It neither creates the topic nor checks that it exists.

use std::sync::Arc;
use std::time::Instant;

use super::Now;
use super::control::{BrokerKey, HostPort, RequestError};
use super::failure::Failure;
use super::outbox::Outcome;
use super::service_url::broker_host;
use crate::error::{Disposition, Error, ErrorKind, ServerError};
use crate::pb;
use crate::wire::command::Command;

const LOOKUP: &str = "the lookup of the topic";
const PARTITIONS: &str = "the number of partitions of the topic";

/// One lookup on its way from broker to broker.
#[derive(Debug)]
pub(crate) struct Lookup {
    at: BrokerKey,
    authoritative: bool,
    hops: u32,
    /// However the hops go, the lookup starts afresh behind this.
    until: Option<Instant>,
}

/// What an answer leads to.
#[derive(Debug)]
pub(crate) enum Looked {
    /// This broker serves the topic.
    Found(BrokerKey),
    /// Ask again, at this broker.
    Redirected(BrokerKey),
    /// Neither.
    Failed(Failure),
}

impl Lookup {
    /// A lookup that starts at `at`.
    pub(crate) fn new(at: BrokerKey, until: Option<Instant>) -> Self {
        Self { at, authoritative: false, hops: 0, until }
    }

    /// LOOKUP (`CommandLookupTopic`); the session sets the request id, a fresh one for every hop.
    pub(crate) fn command(&self, topic: &Arc<str>, listener_name: Option<&str>) -> Command {
        Command::Lookup(pb::CommandLookupTopic {
            topic: topic.to_string(),
            authoritative: Some(self.authoritative),
            // Empty means unset to a broker.
            advertised_listener_name: listener_name.filter(|name| !name.is_empty()).map(str::to_owned),
            ..Default::default()
        })
    }

    /// The answer of the broker that was asked last.
    pub(crate) fn on_answer(&mut self, outcome: Outcome, redirects_max: u32, now: Now) -> Looked {
        match self.read(outcome, redirects_max, now) {
            Ok(looked) => looked,
            Err(failure) => Looked::Failed(failure),
        }
    }

    fn read(&mut self, outcome: Outcome, redirects_max: u32, now: Now) -> Result<Looked, Failure> {
        use pb::command_lookup_topic_response::LookupType;

        let answer = match outcome.map_err(|error| Failure::of_request(error, LOOKUP))? {
            Command::LookupResponse(answer) => answer,
            other => return Err(wrong_answer(&other, LOOKUP)),
        };
        match answer.response.and_then(|kind| LookupType::try_from(kind).ok()) {
            Some(LookupType::Connect) => Ok(Looked::Found(self.broker(&answer)?)),
            Some(LookupType::Redirect) => {
                self.hops += 1;
                if self.hops > redirects_max {
                    let text = format!("the lookup of the topic was redirected more than {redirects_max} times");
                    return Err(Failure::passing(Error::local(ErrorKind::NotReady, text)));
                }
                if self.until.is_some_and(|until| until <= now.at) {
                    let text = format!("the lookup of the topic took too long ({} redirects)", self.hops);
                    return Err(Failure::passing(Error::local(ErrorKind::TimedOut, text)));
                }
                // Without the copied flag a leader sends the question back to where it came from, for ever.
                self.authoritative = answer.authoritative.unwrap_or(false);
                self.at = self.broker(&answer)?;
                Ok(Looked::Redirected(self.at.clone()))
            }
            Some(LookupType::Failed) => Err(refusal(answer.error, answer.message, LOOKUP)),
            None => Err(Failure::passing(Error::protocol("the broker's answer to the lookup is empty"))),
        }
    }

    /// The connection to the broker that an answer names.
    fn broker(&self, answer: &pb::CommandLookupTopicResponse) -> Result<BrokerKey, Failure> {
        let (field, url) = if self.at.tls {
            ("brokerServiceUrlTls", &answer.broker_service_url_tls)
        } else {
            ("brokerServiceUrl", &answer.broker_service_url)
        };
        let Some(url) = url.as_deref().filter(|url| !url.is_empty()) else {
            let text = format!(
                "the lookup names no {field}: the broker has no {} address for its clients",
                if self.at.tls { "TLS" } else { "plain (non-TLS)" }
            );
            return Err(Failure::lasting(Error::protocol(text)));
        };
        let logical = broker_host(url, self.at.tls).map_err(|why| {
            Failure::lasting(Error::protocol(format!("the lookup's {field} `{url}` is not usable: {why}")))
        })?;
        Ok(broker_key(logical, &self.at, answer.proxy_through_service_url.unwrap_or(false)))
    }
}

/// The connection to `logical`: through the address of `through` if a proxy stands there, else straight.
///
/// A standalone broker says `proxy_through_service_url` always. Where both addresses are the same the key comes out
/// as that of a straight connection, so no `proxy_to_broker_url` is sent and no second connection is made.
pub(crate) fn broker_key(logical: HostPort, through: &BrokerKey, proxied: bool) -> BrokerKey {
    let physical = if proxied { through.physical.clone() } else { logical.clone() };
    BrokerKey { logical, physical, tls: through.tls, index: through.index }
}

/// PARTITIONED_METADATA (`CommandPartitionedTopicMetadata`).
pub(crate) fn partitions_command(topic: &Arc<str>) -> Command {
    Command::PartitionedMetadata(pb::CommandPartitionedTopicMetadata { topic: topic.to_string(), ..Default::default() })
}

/// The number of partitions in an answer; 0 means that the topic is not partitioned.
pub(crate) fn read_partitions(outcome: Outcome) -> Result<u32, Failure> {
    use pb::command_partitioned_topic_metadata_response::LookupType;

    let answer = match outcome.map_err(|error| Failure::of_request(error, PARTITIONS))? {
        Command::PartitionedMetadataResponse(answer) => answer,
        other => return Err(wrong_answer(&other, PARTITIONS)),
    };
    match answer.response.and_then(|kind| LookupType::try_from(kind).ok()) {
        Some(LookupType::Success) => Ok(answer.partitions.unwrap_or(0)),
        Some(LookupType::Failed) => Err(refusal(answer.error, answer.message, PARTITIONS)),
        None => Err(Failure::passing(Error::protocol("the broker's answer to the partition question is empty"))),
    }
}

/// The error inside a lookup-type answer; without a code it counts as UnknownError.
fn refusal(code: Option<i32>, message: Option<String>, doing: &str) -> Failure {
    Failure::of_request(RequestError::Server(ServerError::new(code.unwrap_or(0), message.unwrap_or_default())), doing)
}

fn wrong_answer(answer: &Command, doing: &str) -> Failure {
    let text = format!("the broker answered {} when asked for {doing}", answer.name());
    Failure { error: Error::protocol(text), disposition: Disposition::Retry, blames_link: true }
}
