//! Topic to broker: LOOKUP with its redirects.
//!
//! LOOKUP comes before every PRODUCER and SUBSCRIBE, even with a single broker, because it makes a broker own the
//! topic's bundle. It neither creates the topic nor checks that it exists.

use std::sync::Arc;
use std::time::Instant;

use crate::error::{Error, ErrorKind};
use crate::machine::Now;
use crate::machine::control::{BrokerKey, HostPort, Transport};
use crate::machine::endpoint::outbox::Response;
use crate::machine::supervisor::failure::Failure;
use crate::machine::supervisor::service_url::broker_host;
use crate::pb;
use crate::wire::command::Command;

const LOOKUP_DESCRIPTION: &str = "the lookup of the topic";

/// One lookup on its way from broker to broker.
#[derive(Debug)]
pub(crate) struct Lookup {
    at: BrokerKey,
    authoritative: bool,
    hops: u32,
    /// After this the lookup starts afresh, however few the redirects were.
    deadline: Option<Instant>,
}

/// The step that follows an response.
#[derive(Debug)]
pub(crate) enum LookupStep {
    /// This broker serves the topic.
    Found(BrokerKey),
    /// Ask again, at this broker.
    Redirected(BrokerKey),
    /// Refused, not answered, or an answer that names no usable broker.
    Failed(Failure),
}

impl LookupStep {
    /// The failure, if it is one.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure) => Some(failure),
            Self::Found(_) | Self::Redirected(_) => None,
        }
    }
}

impl Lookup {
    /// A lookup that starts at `at`.
    pub(crate) fn new(at: BrokerKey, deadline: Option<Instant>) -> Self {
        Self { at, authoritative: false, hops: 0, deadline }
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
    pub(crate) fn on_response(&mut self, response: Response, redirects_max: u32, now: Now) -> LookupStep {
        match self.read(response, redirects_max, now) {
            Ok(step) => step,
            Err(failure) => LookupStep::Failed(failure),
        }
    }

    fn read(&mut self, response: Response, redirects_max: u32, now: Now) -> Result<LookupStep, Failure> {
        use pb::command_lookup_topic_response::LookupType;

        let response = match *response.map_err(|error| Failure::of_request(error, LOOKUP_DESCRIPTION))? {
            Command::LookupResponse(response) => response,
            other => return Err(Failure::of_wrong_response(&other, LOOKUP_DESCRIPTION)),
        };
        match response.response.and_then(|kind| LookupType::try_from(kind).ok()) {
            Some(LookupType::Connect) => Ok(LookupStep::Found(self.broker(&response)?)),
            Some(LookupType::Redirect) => {
                self.hops += 1;
                if self.hops > redirects_max {
                    let text = format!("the lookup of the topic was redirected more than {redirects_max} times");
                    return Err(Failure::retriable(Error::local(ErrorKind::NotReady, text)));
                }
                if self.deadline.is_some_and(|deadline| deadline <= now.at) {
                    let text = format!("the lookup of the topic took too long ({} redirects)", self.hops);
                    return Err(Failure::retriable(Error::local(ErrorKind::TimedOut, text)));
                }
                // Without the copied flag a leader would redirect back to where the lookup came from, for ever.
                self.authoritative = response.authoritative.unwrap_or(false);
                self.at = self.broker(&response)?;
                Ok(LookupStep::Redirected(self.at.clone()))
            }
            // A refusal does not come here as an response, see the table of commands.
            Some(LookupType::Failed) | None => {
                Err(Failure::retriable(Error::protocol("the broker's answer to the lookup is empty")))
            }
        }
    }

    /// The connection to the broker that an answer names.
    fn broker(&self, response: &pb::CommandLookupTopicResponse) -> Result<BrokerKey, Failure> {
        let (field, url) = if self.at.tls {
            ("brokerServiceUrlTls", &response.broker_service_url_tls)
        } else {
            ("brokerServiceUrl", &response.broker_service_url)
        };
        let Some(url) = url.as_deref().filter(|url| !url.is_empty()) else {
            let text = format!(
                "the lookup names no {field}: the broker has no {} address for its clients",
                if self.at.tls { "TLS" } else { "plain (non-TLS)" }
            );
            return Err(Failure::until_configured(Error::protocol(text)));
        };
        let proxied = response.proxy_through_service_url.unwrap_or(false);
        let logical = broker_host(url, self.at.tls, proxied).map_err(|why| {
            Failure::until_configured(Error::protocol(format!("the lookup's {field} `{url}` is not usable: {why}")))
        })?;
        Ok(broker_key(logical, &self.at, proxied))
    }
}

/// The connection to `logical`: through the address of `through` if a proxy stands there, else straight.
///
/// A standalone broker says `proxy_through_service_url` always. Where both addresses are the same the key comes out
/// as that of a straight connection, so no `proxy_to_broker_url` is sent and no second connection is made. A broker speaks
/// the binary protocol, also where the lookup went over HTTP.
pub(crate) fn broker_key(logical: HostPort, through: &BrokerKey, proxied: bool) -> BrokerKey {
    let physical = if proxied { through.physical.clone() } else { logical.clone() };
    BrokerKey { logical, physical, transport: Transport::Pulsar, ..through.clone() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::{RetryPolicy, ServerError};
    use crate::machine::connection::error::RequestError;
    use pb::command_lookup_topic_response::LookupType;

    const TOPIC: &str = "persistent://public/default/t";

    fn now() -> Now {
        Now { at: Instant::now(), wall_ms: 0 }
    }

    fn host(name: &str) -> HostPort {
        HostPort { host: name.into(), port: 6650 }
    }

    fn entry(tls: bool) -> BrokerKey {
        BrokerKey { tls, ..BrokerKey::of_host(host("service"), Transport::Pulsar) }
    }

    fn response(kind: LookupType, url: Option<&str>) -> pb::CommandLookupTopicResponse {
        pb::CommandLookupTopicResponse {
            response: Some(kind as i32),
            broker_service_url: url.map(str::to_owned),
            ..Default::default()
        }
    }

    fn ask(lookup: &mut Lookup, response: pb::CommandLookupTopicResponse) -> LookupStep {
        lookup.on_response(Ok(Box::new(Command::LookupResponse(response))), 20, now())
    }

    fn failure(looked: LookupStep) -> Failure {
        match looked {
            LookupStep::Failed(failure) => failure,
            other => panic!("a failure was expected, not {other:?}"),
        }
    }

    fn is_authoritative(lookup: &Lookup) -> bool {
        match lookup.command(&TOPIC.into(), None) {
            Command::Lookup(command) => command.authoritative(),
            other => panic!("not a lookup: {other:?}"),
        }
    }

    #[test]
    fn connect_names_the_broker() {
        let mut lookup = Lookup::new(entry(false), None);
        let LookupStep::Found(key) = ask(&mut lookup, response(LookupType::Connect, Some("pulsar://b:7000"))) else {
            panic!("found");
        };
        assert_eq!(key.logical.to_string(), "b:7000");
        assert_eq!(key.physical, key.logical);
        assert_eq!(key.proxy_to_broker_url(), None);
    }

    #[test]
    fn the_flag_of_a_redirect_is_copied_whatever_it_is() {
        let mut lookup = Lookup::new(entry(false), None);
        assert!(!is_authoritative(&lookup));
        for authoritative in [true, false, true] {
            let mut redirect = response(LookupType::Redirect, Some("pulsar://leader:6650"));
            redirect.authoritative = Some(authoritative);
            assert!(matches!(ask(&mut lookup, redirect), LookupStep::Redirected(key) if key.logical == host("leader")));
            assert_eq!(is_authoritative(&lookup), authoritative);
        }
    }

    #[test]
    fn redirects_end_after_the_limit_and_may_be_tried_again() {
        let mut lookup = Lookup::new(entry(false), None);
        for _ in 0..20 {
            let looked = ask(&mut lookup, response(LookupType::Redirect, Some("pulsar://a:6650")));
            assert!(matches!(looked, LookupStep::Redirected(_)));
        }
        let end = failure(ask(&mut lookup, response(LookupType::Redirect, Some("pulsar://a:6650"))));
        assert_eq!(end.retry_policy, RetryPolicy::Retry);
        assert!(end.error.to_string().contains("20 times"), "{}", end.error);
    }

    #[test]
    fn redirects_end_with_the_time_of_the_lookup() {
        let start = now();
        let mut lookup = Lookup::new(entry(false), start.at.checked_add(Duration::from_secs(30)));
        let late = Now { at: start.at + Duration::from_secs(31), wall_ms: 0 };
        let redirect = Command::LookupResponse(response(LookupType::Redirect, Some("pulsar://a:6650")));
        let end = failure(lookup.on_response(Ok(Box::new(redirect)), 20, late));
        assert_eq!((end.error.kind(), end.retry_policy), (ErrorKind::TimedOut, RetryPolicy::Retry));
    }

    #[test]
    fn the_scheme_decides_which_address_is_read() {
        let mut both = response(LookupType::Connect, Some("pulsar://plain:1"));
        both.broker_service_url_tls = Some("pulsar+ssl://secret:2".to_owned());
        let found = |tls| match ask(&mut Lookup::new(entry(tls), None), both.clone()) {
            LookupStep::Found(key) => (key.logical.to_string(), key.tls),
            other => panic!("{other:?}"),
        };
        assert_eq!(found(false), ("plain:1".to_owned(), false));
        assert_eq!(found(true), ("secret:2".to_owned(), true));
    }

    #[test]
    fn a_missing_or_wrong_address_is_a_clear_error() {
        let mut lookup = Lookup::new(entry(true), None);
        let missing = failure(ask(&mut lookup, response(LookupType::Connect, Some("pulsar://plain:1"))));
        assert!(missing.error.to_string().contains("no TLS address"), "{}", missing.error);
        assert!(missing.is_final(false) && !missing.is_final(true));

        let mut lookup = Lookup::new(entry(false), None);
        let empty = failure(ask(&mut lookup, response(LookupType::Redirect, Some(""))));
        assert!(empty.error.to_string().contains("brokerServiceUrl"), "{}", empty.error);
        let wrong = failure(ask(&mut lookup, response(LookupType::Connect, Some("http://b:8080"))));
        assert!(wrong.error.to_string().contains("http://b:8080"), "{}", wrong.error);
    }

    #[test]
    fn a_proxy_keeps_the_address_that_was_dialed() {
        let mut lookup = Lookup::new(entry(false), None);
        let mut proxied = response(LookupType::Connect, Some("pulsar://broker-7:6650"));
        proxied.proxy_through_service_url = Some(true);
        let LookupStep::Found(key) = ask(&mut lookup, proxied) else { panic!("found") };
        assert_eq!((key.logical.clone(), key.physical.clone()), (host("broker-7"), host("service")));
        assert_eq!(key.proxy_to_broker_url().as_deref(), Some("broker-7:6650"));
    }

    /// A proxy of Pulsar names a broker with the same URL in both fields: that by which it reaches the broker itself.
    #[test]
    fn behind_a_proxy_the_schemes_of_both_ways_differ() {
        for (tls, url) in [(true, "pulsar://broker-7:6650"), (false, "pulsar+ssl://broker-7:6650")] {
            let mut lookup = Lookup::new(entry(tls), None);
            let mut proxied = response(LookupType::Connect, Some(url));
            proxied.broker_service_url_tls = Some(url.to_owned());
            proxied.proxy_through_service_url = Some(true);
            let LookupStep::Found(key) = ask(&mut lookup, proxied) else { panic!("found") };
            assert_eq!((key.logical, key.physical, key.tls), (host("broker-7"), host("service"), tls));
        }
    }

    #[test]
    fn a_standalone_that_claims_a_proxy_is_reached_over_the_same_connection() {
        let mut lookup = Lookup::new(entry(false), None);
        let mut standalone = response(LookupType::Connect, Some("pulsar://service:6650"));
        standalone.proxy_through_service_url = Some(true);
        assert!(matches!(ask(&mut lookup, standalone), LookupStep::Found(key) if key == entry(false)));
    }

    #[test]
    fn refusals_follow_their_code() {
        let refused = |code| {
            let refusal = Err(RequestError::Server(ServerError::new(code, "said the broker")));
            match Lookup::new(entry(false), None).on_response(refusal, 20, now()) {
                LookupStep::Failed(failure) => failure,
                other => panic!("{other:?}"),
            }
        };
        let not_ready = refused(6);
        assert!(not_ready.counts_against_connection && !not_ready.is_final(false));
        let missing = refused(11);
        assert!(!missing.counts_against_connection && missing.is_final(true));
        assert_eq!(missing.error.kind(), ErrorKind::TopicNotFound);
        assert_eq!(refused(0).retry_policy, RetryPolicy::Retry);
    }

    #[test]
    fn a_response_without_an_outcome_is_a_failure() {
        let mut lookup = Lookup::new(entry(false), None);
        let empty = failure(ask(&mut lookup, Default::default()));
        assert_eq!(empty.retry_policy, RetryPolicy::Retry);
        let silent = failure(lookup.on_response(Err(RequestError::TimedOut), 20, now()));
        assert!(silent.counts_against_connection);
    }

    #[test]
    fn the_listener_is_named_when_set() {
        let lookup = Lookup::new(entry(false), None);
        let listener = |name| match lookup.command(&TOPIC.into(), name) {
            Command::Lookup(command) => command.advertised_listener_name,
            other => panic!("{other:?}"),
        };
        assert_eq!(listener(Some("external")).as_deref(), Some("external"));
        assert_eq!(listener(Some("")), None);
        assert_eq!(listener(None), None);
    }
}
