//! Real producers, the real supervisor, and in place of the sessions a few lines that answer actions with notices, in
//! virtual time. One test for each edge of the diagram of [`AttachState`], then the rules that span several of them.

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::*;
use crate::error::{Result, ServerError};
use crate::id::ProducerId;
use crate::machine::brokers::LOOKUP_FAILURES_MAX;
use crate::machine::control::{AuthData, CloseReason, HostPort, PeerInfo};
use crate::machine::producer::{Producer, ProducerConfig, ProducerCreated};
use crate::machine::{Endpoint, Reply};
use crate::pb;
use crate::pb::command_lookup_topic_response::LookupType;

/// One connection as the fake sessions see it.
struct Peer {
    address: String,
    ready: Arc<ReadyList>,
    guests: BTreeMap<EndpointId, (EndpointRef, Attempt)>,
}

struct Rig {
    supervisor: Supervisor,
    ready: Arc<ReadyList>,
    now: Now,
    start: Instant,
    wakes: Wakes,
    peers: BTreeMap<LinkId, Peer>,
    asks: VecDeque<(LinkId, AskId, Command)>,
    opens: VecDeque<(LinkId, EndpointId, Attempt)>,
    /// Hosts that refuse connections.
    unreachable: BTreeSet<&'static str>,
    /// Whether dials end with `Up` at once, and credentials are there at once.
    answers: bool,
    refuses_token: bool,
    log: Vec<String>,
}

fn peek<T>(reply: &mut Reply<T>) -> Option<Result<T>> {
    match Pin::new(reply).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

fn server_error(code: i32) -> RequestError {
    RequestError::Server(ServerError::new(code, "said the broker"))
}

fn lookup_answer(kind: LookupType, url: &str) -> pb::CommandLookupTopicResponse {
    pb::CommandLookupTopicResponse {
        response: Some(kind as i32),
        broker_service_url: Some(url.to_owned()),
        ..Default::default()
    }
}

fn connect_to(url: &str) -> Outcome {
    Ok(Box::new(Command::LookupResponse(lookup_answer(LookupType::Connect, url))))
}

fn lookup_refused(code: i32) -> Outcome {
    let mut answer = lookup_answer(LookupType::Failed, "");
    answer.error = Some(code);
    Ok(Box::new(Command::LookupResponse(answer)))
}

fn partitions_answer(partitions: u32) -> Outcome {
    use pb::command_partitioned_topic_metadata_response::LookupType;
    Ok(Box::new(Command::PartitionedMetadataResponse(pb::CommandPartitionedTopicMetadataResponse {
        response: Some(LookupType::Success as i32),
        partitions: Some(partitions),
        ..Default::default()
    })))
}

fn partitions_refused(code: i32) -> Outcome {
    use pb::command_partitioned_topic_metadata_response::LookupType;
    Ok(Box::new(Command::PartitionedMetadataResponse(pb::CommandPartitionedTopicMetadataResponse {
        response: Some(LookupType::Failed as i32),
        error: Some(code),
        ..Default::default()
    })))
}

impl Rig {
    fn new(url: &str) -> Self {
        Self::with(url, |_| {})
    }

    fn with(url: &str, change: impl FnOnce(&mut SupervisorConfig)) -> Self {
        let ready = ReadyList::new();
        let mut config = SupervisorConfig::new(ServiceUrl::parse(url).expect("a good URL"), 4);
        change(&mut config);
        let start = Instant::now();
        Self {
            supervisor: Supervisor::new(config, ready.clone()),
            ready,
            now: Now { at: start, wall_ms: 0 },
            start,
            wakes: Wakes::new(),
            peers: BTreeMap::new(),
            asks: VecDeque::new(),
            opens: VecDeque::new(),
            unreachable: BTreeSet::new(),
            answers: true,
            refuses_token: false,
            log: Vec::new(),
        }
    }

    fn input(&mut self, input: Input) {
        self.supervisor.handle(input, self.now, &mut self.wakes);
        self.pump();
    }

    fn notice(&mut self, link: LinkId, notice: SessionNotice) {
        self.input(Input::From(link, notice));
    }

    /// Carries out actions until there are none.
    fn pump(&mut self) {
        loop {
            self.supervisor.handle_ready(None, self.now, &mut self.wakes);
            let Some(action) = self.supervisor.poll_action() else { break };
            let (now, wakes) = (self.now, &mut self.wakes);
            match action {
                Action::FetchCredentials(link) => {
                    self.log.push("fetch".to_owned());
                    if self.answers {
                        self.supervisor.handle(Input::Credentials(link, Ok(AuthData::none())), now, wakes);
                    }
                }
                Action::Dial { link, key, .. } => {
                    let through = key.proxy_to_broker_url().map(|url| format!(" for {url}")).unwrap_or_default();
                    self.log.push(format!("dial {}{through}", key.physical));
                    let address = key.logical.to_string();
                    let peer = Peer { address: address.clone(), ready: ReadyList::new(), guests: BTreeMap::new() };
                    self.peers.insert(link, peer);
                    let notice = if self.unreachable.contains(key.physical.host.as_ref()) {
                        let refused = format!("connecting to {}: connection refused", key.physical);
                        SessionNotice::Ended(CloseReason::Dial(Error::network(refused)))
                    } else if self.refuses_token {
                        let refused = ServerError::new(3, "Failed to authenticate");
                        SessionNotice::Ended(CloseReason::Broker(refused))
                    } else if self.answers {
                        SessionNotice::Up(peer_info(&address))
                    } else {
                        continue;
                    };
                    self.supervisor.handle(Input::From(link, notice), now, wakes);
                }
                Action::Tell(link, SessionCommand::Ask(ask, command)) => {
                    let (name, authoritative) = match &*command {
                        Command::Lookup(lookup) => {
                            ("lookup", if lookup.authoritative() { " (authoritative)" } else { "" })
                        }
                        _ => ("partitions", ""),
                    };
                    self.log.push(format!("{name} at {}{authoritative}", self.peers[&link].address));
                    self.asks.push_back((link, ask, *command));
                }
                Action::Tell(link, SessionCommand::Open(endpoint, attempt)) => {
                    let peer = self.peers.get_mut(&link).expect("it was dialed");
                    let id = endpoint.id();
                    self.log.push(format!("open {id} #{} at {}", attempt.0, peer.address));
                    endpoint.move_to(&peer.ready, wakes);
                    if let EndpointRef::Producer(producer) = &endpoint {
                        producer.with(wakes, |producer, _| producer.open_request(now));
                    }
                    peer.guests.insert(id, (endpoint, attempt));
                    self.opens.push_back((link, id, attempt));
                }
                Action::Tell(_, SessionCommand::Challenge(_)) => self.log.push("challenge".to_owned()),
                Action::HangUp(link) => {
                    let address = self.give_all_back(link).expect("it was dialed");
                    self.log.push(format!("hang up {address}"));
                }
            }
        }
        self.wakes.fire();
    }

    fn log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    /// Lets time pass, with everything that falls due on the way.
    fn wait(&mut self, time: Duration) {
        let until = self.now.at + time;
        while let Some(deadline) = self.supervisor.poll_deadline().filter(|deadline| deadline.at <= until) {
            self.now.at = self.now.at.max(deadline.at);
            self.supervisor.handle_deadline(self.now, &mut self.wakes);
            self.pump();
        }
        self.now.at = until;
    }

    fn wait_ms(&mut self, ms: u64) {
        self.wait(Duration::from_millis(ms));
    }

    fn open(&mut self, number: u64) -> (Arc<Endpoint<Producer>>, Reply<ProducerCreated>) {
        let (created, reply) = Reply::pair();
        let (id, topic) = (ProducerId(number), Arc::from("persistent://public/default/t"));
        let producer = Producer::new(id, topic, -1, Arc::new(ProducerConfig::default()), created, self.now);
        let endpoint = Endpoint::new(EndpointId::Producer(id), producer, self.ready.clone());
        self.input(Input::Open(EndpointRef::Producer(endpoint.clone())));
        (endpoint, reply)
    }

    /// Answers the oldest question.
    fn answer(&mut self, outcome: Outcome) {
        let (link, ask, _) = self.asks.pop_front().expect("a question");
        self.notice(link, SessionNotice::Answer(ask, outcome));
    }

    /// The oldest open succeeds.
    fn opened(&mut self) -> (LinkId, EndpointId, Attempt) {
        let (link, id, attempt) = self.opens.pop_front().expect("an open");
        let peer = &self.peers[&link];
        let (EndpointRef::Producer(producer), _) = &peer.guests[&id] else { panic!("a producer") };
        let success = pb::CommandProducerSuccess { producer_name: "made-up".to_owned(), ..Default::default() };
        let info = peer_info(&peer.address);
        producer.with(&mut self.wakes, |producer, wakes| producer.on_attached(&success, &info, self.now, wakes));
        self.notice(link, SessionNotice::Opened(id, attempt));
        (link, id, attempt)
    }

    /// The session gives a guest up.
    fn give_back(&mut self, link: LinkId, id: EndpointId) -> Attempt {
        let (endpoint, attempt) =
            self.peers.get_mut(&link).and_then(|peer| peer.guests.remove(&id)).expect("it is a guest");
        endpoint.move_to(&self.ready, &mut self.wakes);
        endpoint.detach(self.now, &mut self.wakes);
        attempt
    }

    fn give_all_back(&mut self, link: LinkId) -> Option<String> {
        let peer = self.peers.remove(&link)?;
        for (endpoint, _) in peer.guests.into_values() {
            endpoint.move_to(&self.ready, &mut self.wakes);
            endpoint.detach(self.now, &mut self.wakes);
        }
        self.asks.retain(|(asked, ..)| *asked != link);
        self.opens.retain(|(opening, ..)| *opening != link);
        Some(peer.address)
    }

    /// The oldest open fails.
    fn open_fails(&mut self, error: RequestError) {
        let (link, id, _) = self.opens.pop_front().expect("an open");
        let attempt = self.give_back(link, id);
        self.notice(link, SessionNotice::OpenFailed(id, attempt, error));
    }

    fn detached(&mut self, link: LinkId, id: EndpointId, url: Option<&str>) {
        let attempt = self.give_back(link, id);
        self.notice(link, SessionNotice::Detached(id, attempt, url.map(str::to_owned)));
    }

    fn end(&mut self, link: LinkId, why: &str) {
        self.give_all_back(link);
        self.notice(link, SessionNotice::Ended(CloseReason::Io(why.to_owned())));
    }

    /// An endpoint that is attached to the service host itself.
    fn attached(&mut self, number: u64) -> (Arc<Endpoint<Producer>>, LinkId) {
        let (endpoint, mut created) = self.open(number);
        self.answer(connect_to("pulsar://service:6650"));
        let (link, ..) = self.opened();
        assert!(matches!(peek(&mut created), Some(Ok(_))));
        self.log();
        (endpoint, link)
    }

    fn state(&self, number: u64) -> &'static str {
        match self.supervisor.endpoints.get(&id(number)).map(|attach| &attach.state) {
            Some(AttachState::LookingUp { .. }) => "looking up",
            Some(AttachState::Connecting) => "connecting",
            Some(AttachState::Opening) => "opening",
            Some(AttachState::Attached) => "attached",
            Some(AttachState::BackingOff) => "backing off",
            None => "closed",
        }
    }
}

fn id(number: u64) -> EndpointId {
    EndpointId::Producer(ProducerId(number))
}

fn peer_info(address: &str) -> PeerInfo {
    PeerInfo {
        address: address.into(),
        server_version: "test".to_owned(),
        protocol_version: 21,
        max_message_size: 5 * 1024 * 1024,
        supports_topic_watchers: false,
        supports_partitions_without_creation: false,
    }
}

const NONE: [&str; 0] = [];

#[test]
fn an_endpoint_is_looked_up_and_opened_over_the_connection_there_is() {
    let mut rig = Rig::new("pulsar://service");
    let (_endpoint, mut created) = rig.open(1);
    assert_eq!(rig.log(), ["fetch", "dial service:6650", "lookup at service:6650"]);
    assert_eq!(rig.state(1), "looking up");
    let mut answer = lookup_answer(LookupType::Connect, "pulsar://service:6650");
    answer.proxy_through_service_url = Some(true);
    rig.answer(Ok(Box::new(Command::LookupResponse(answer))));
    assert_eq!(rig.log(), ["open producer 1 #1 at service:6650"]);
    assert_eq!(rig.state(1), "opening");
    assert!(peek(&mut created).is_none());
    rig.opened();
    assert_eq!(rig.state(1), "attached");
    assert_eq!(peek(&mut created).expect("created").expect("well").name, "made-up");
}

#[test]
fn the_broker_that_a_lookup_names_is_dialed_once_for_all_its_topics() {
    let mut rig = Rig::new("pulsar://service");
    let _endpoints = [rig.open(1), rig.open(2)];
    rig.log();
    rig.answers = false;
    rig.answer(connect_to("pulsar://b:6650"));
    rig.answer(connect_to("pulsar://b:6650"));
    assert_eq!(rig.log(), ["fetch"]);
    assert_eq!((rig.state(1), rig.state(2)), ("connecting", "connecting"));
    rig.answers = true;
    rig.input(Input::Credentials(LinkId(2), Ok(AuthData::none())));
    assert_eq!(rig.log(), ["dial b:6650", "open producer 1 #1 at b:6650", "open producer 2 #1 at b:6650"]);
}

#[test]
fn a_redirect_is_followed_with_its_flag() {
    let mut rig = Rig::new("pulsar://service");
    let _endpoint = rig.open(1);
    rig.log();
    let mut redirect = lookup_answer(LookupType::Redirect, "pulsar://leader:6650");
    redirect.authoritative = Some(true);
    rig.answer(Ok(Box::new(Command::LookupResponse(redirect))));
    assert_eq!(rig.log(), ["fetch", "dial leader:6650", "lookup at leader:6650 (authoritative)"]);
    assert_eq!(rig.state(1), "looking up");
    rig.answer(connect_to("pulsar://service:6650"));
    assert_eq!(rig.log(), ["open producer 1 #1 at service:6650"]);
}

#[test]
fn a_broker_behind_a_proxy_gets_its_own_connection_through_it() {
    let mut rig = Rig::new("pulsar://service");
    let _endpoint = rig.open(1);
    rig.log();
    let mut answer = lookup_answer(LookupType::Connect, "pulsar://b:6650");
    answer.proxy_through_service_url = Some(true);
    rig.answer(Ok(Box::new(Command::LookupResponse(answer))));
    assert_eq!(rig.log(), ["fetch", "dial service:6650 for b:6650", "open producer 1 #1 at b:6650"]);
    let (link, ..) = rig.opened();
    rig.detached(link, id(1), Some("pulsar://c:6650"));
    assert_eq!(rig.log(), ["fetch", "dial service:6650 for c:6650", "open producer 1 #2 at c:6650"]);
}

#[test]
fn a_lookup_that_is_refused_for_now_is_tried_again_after_a_pause() {
    let mut rig = Rig::new("pulsar://service");
    let (_endpoint, mut created) = rig.open(1);
    rig.log();
    rig.answer(lookup_refused(6));
    assert_eq!((rig.log().len(), rig.state(1)), (0, "backing off"));
    rig.wait_ms(99);
    assert_eq!(rig.log(), NONE);
    rig.wait_ms(1);
    assert_eq!(rig.log(), ["lookup at service:6650"]);
    rig.answer(Err(RequestError::TimedOut));
    rig.wait_ms(200);
    assert_eq!(rig.log(), ["lookup at service:6650"]);
    assert!(peek(&mut created).is_none());
}

#[test]
fn an_unknown_topic_is_one_clear_error() {
    let mut rig = Rig::new("pulsar://service");
    let (endpoint, mut created) = rig.open(1);
    rig.answer(lookup_refused(11));
    let error = peek(&mut created).expect("answered").expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::TopicNotFound);
    assert_eq!(error.topic(), Some("persistent://public/default/t"));
    assert_eq!(error.address(), Some("service:6650"));
    assert_eq!(rig.state(1), "closed");
    assert!(EndpointRef::Producer(endpoint).is_finished());
}

#[test]
fn an_unreachable_broker_is_retried_until_the_creation_deadline_names_it() {
    let mut rig = Rig::new("pulsar://service");
    rig.unreachable.insert("service");
    let (_endpoint, mut created) = rig.open(1);
    assert_eq!((rig.log(), rig.state(1)), (vec!["fetch".to_owned(), "dial service:6650".to_owned()], "backing off"));
    rig.wait(Duration::from_secs(29));
    assert!(peek(&mut created).is_none());
    let dials = rig.log().iter().filter(|line| line.starts_with("dial")).count();
    assert!((6..14).contains(&dials), "{dials}");
    rig.wait(Duration::from_secs(1));
    let error = peek(&mut created).expect("answered").expect_err("unreachable");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(error.to_string().contains("connecting to service:6650: connection refused"), "{error}");
    assert_eq!(rig.state(1), "closed");
    rig.log();
    rig.wait(Duration::from_secs(600));
    assert_eq!(rig.log(), NONE);
}

#[test]
fn a_dial_without_an_end_does_not_outlive_the_creation_deadline() {
    let mut rig = Rig::new("pulsar://service");
    rig.answers = false;
    let (_endpoint, mut created) = rig.open(1);
    rig.wait(Duration::from_secs(30));
    let error = peek(&mut created).expect("answered").expect_err("late");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(error.to_string().contains("waiting for service:6650"), "{error}");
}

#[test]
fn a_broker_that_comes_back_is_found() {
    let mut rig = Rig::new("pulsar://service");
    rig.unreachable.insert("service");
    let _endpoint = rig.open(1);
    rig.wait(Duration::from_secs(10));
    rig.unreachable.clear();
    rig.wait(Duration::from_secs(15));
    rig.answer(connect_to("pulsar://service:6650"));
    rig.opened();
    assert_eq!(rig.state(1), "attached");
}

#[test]
fn a_new_producer_ends_with_a_refusal_that_an_established_one_outlasts() {
    let mut rig = Rig::new("pulsar://service");
    let (_attached, link) = rig.attached(1);
    let (_endpoint, mut created) = rig.open(2);
    rig.answer(connect_to("pulsar://service:6650"));
    rig.open_fails(server_error(16));
    let error = peek(&mut created).expect("answered").expect_err("busy");
    assert_eq!((error.kind(), error.address()), (ErrorKind::Busy, Some("service:6650")));
    assert!(error.to_string().contains("said the broker"), "{error}");

    rig.end(link, "reset by peer");
    for _ in 0..50 {
        rig.wait(Duration::from_secs(60));
        rig.answer(connect_to("pulsar://service:6650"));
        rig.open_fails(server_error(16));
        assert_eq!(rig.state(1), "backing off");
    }
    rig.wait(Duration::from_secs(60));
    rig.answer(connect_to("pulsar://service:6650"));
    rig.opened();
    assert_eq!(rig.state(1), "attached");
}

#[test]
fn a_terminal_refusal_ends_an_established_producer() {
    let mut rig = Rig::new("pulsar://service");
    let (endpoint, link) = rig.attached(1);
    rig.detached(link, id(1), None);
    rig.wait_ms(100);
    rig.answer(connect_to("pulsar://service:6650"));
    rig.open_fails(server_error(15));
    assert_eq!(rig.state(1), "closed");
    assert!(EndpointRef::Producer(endpoint).is_finished());
}

#[test]
fn every_open_has_a_higher_attempt_and_news_of_a_lower_one_change_nothing() {
    let mut rig = Rig::new("pulsar://service");
    let _endpoint = rig.open(1);
    rig.answer(connect_to("pulsar://service:6650"));
    let (link, ..) = rig.opens[0];
    rig.open_fails(RequestError::TimedOut);
    rig.wait_ms(100);
    rig.log();
    rig.answer(connect_to("pulsar://service:6650"));
    assert_eq!(rig.log(), ["open producer 1 #2 at service:6650"]);
    for stale in [
        SessionNotice::Opened(id(1), Attempt(1)),
        SessionNotice::OpenFailed(id(1), Attempt(1), server_error(15)),
        SessionNotice::Detached(id(1), Attempt(1), None),
    ] {
        rig.notice(link, stale);
        assert_eq!(rig.state(1), "opening");
    }
    let _other = rig.open(2);
    let (_, ask, _) = rig.asks[0].clone();
    rig.notice(LinkId(99), SessionNotice::Answer(ask, connect_to("pulsar://service:6650")));
    assert_eq!(rig.state(2), "looking up");
    rig.notice(LinkId(99), SessionNotice::Opened(id(1), Attempt(2)));
    rig.notice(LinkId(99), SessionNotice::Finished(id(1)));
    rig.notice(LinkId(99), SessionNotice::Ended(CloseReason::Io("reset".to_owned())));
    assert_eq!(rig.state(1), "opening");
    rig.opened();
    rig.notice(link, SessionNotice::OpenFailed(id(1), Attempt(1), server_error(15)));
    assert_eq!(rig.state(1), "attached");
}

#[test]
fn a_connection_lost_while_opening_leads_back_to_lookup() {
    let mut rig = Rig::new("pulsar://service");
    let (_endpoint, mut created) = rig.open(1);
    rig.answer(connect_to("pulsar://b:6650"));
    let (link, _, attempt) = rig.opens[0];
    rig.end(link, "reset by peer");
    assert_eq!(rig.state(1), "backing off");
    rig.notice(link, SessionNotice::Opened(id(1), attempt));
    assert_eq!(rig.state(1), "backing off");
    rig.log();
    rig.wait_ms(100);
    assert_eq!(rig.log(), ["lookup at service:6650"]);
    assert!(peek(&mut created).is_none());
}

#[test]
fn a_connection_lost_while_looking_up_or_connecting_leads_back_to_lookup() {
    let mut rig = Rig::new("pulsar://service");
    let _endpoint = rig.open(1);
    let (link, ask, _) = rig.asks[0].clone();
    rig.end(link, "reset by peer");
    assert_eq!(rig.state(1), "backing off");
    rig.notice(link, SessionNotice::Answer(ask, connect_to("pulsar://b:6650")));
    assert_eq!(rig.state(1), "backing off");
    rig.wait_ms(100);
    rig.unreachable.insert("b");
    rig.answer(connect_to("pulsar://b:6650"));
    assert_eq!(rig.state(1), "backing off");
    rig.log();
    rig.wait_ms(200);
    assert_eq!(rig.log(), ["lookup at service:6650"]);
}

#[test]
fn an_attached_endpoint_comes_back_after_a_lost_connection_with_the_shortest_pause() {
    let mut rig = Rig::new("pulsar://service");
    let (_endpoint, mut link) = rig.attached(1);
    for round in 2..5 {
        rig.end(link, "reset by peer");
        assert_eq!(rig.state(1), "backing off");
        rig.wait_ms(100);
        assert_eq!(rig.log(), ["fetch", "dial service:6650", "lookup at service:6650"]);
        rig.answer(connect_to("pulsar://service:6650"));
        assert_eq!(rig.log(), [format!("open producer 1 #{round} at service:6650")]);
        (link, ..) = rig.opened();
        assert_eq!(rig.state(1), "attached");
    }
}

#[test]
fn a_producer_tries_once_more_just_before_its_messages_time_out() {
    let mut rig = Rig::new("pulsar://service");
    let (_endpoint, link) = rig.attached(1);
    rig.detached(link, id(1), None);
    let lost = rig.now;
    let mut tries = Vec::new();
    while rig.now.at < lost.at + Duration::from_secs(60) {
        while !rig.asks.is_empty() {
            tries.push(rig.now.at - lost.at);
            rig.answer(lookup_refused(6));
        }
        rig.wait_ms(50);
    }
    let chance = Duration::from_millis(29_900);
    let made = tries.iter().filter(|&&at| at >= chance && at < chance + Duration::from_millis(100)).count();
    assert_eq!(made, 1, "the default send timeout is 30 s: {tries:?}");
}

#[test]
fn a_closed_producer_is_looked_up_again_and_its_siblings_stay() {
    let mut rig = Rig::new("pulsar://service");
    let (_first, link) = rig.attached(1);
    let (_second, same) = rig.attached(2);
    assert_eq!(link, same);
    rig.detached(link, id(1), None);
    assert_eq!((rig.state(1), rig.state(2)), ("backing off", "attached"));
    rig.wait_ms(100);
    assert_eq!(rig.log(), ["lookup at service:6650"]);
}

#[test]
fn an_assigned_broker_is_used_at_once_and_once() {
    let mut rig = Rig::new("pulsar://service");
    let (_endpoint, link) = rig.attached(1);
    rig.detached(link, id(1), Some("pulsar://b:6650"));
    assert_eq!(rig.log(), ["fetch", "dial b:6650", "open producer 1 #2 at b:6650"]);
    rig.open_fails(server_error(6));
    assert_eq!(rig.state(1), "backing off");
    rig.wait_ms(100);
    assert_eq!(rig.log(), ["lookup at service:6650"]);
}

#[test]
fn an_assigned_broker_that_is_dead_or_nonsense_leads_to_lookup() {
    let mut rig = Rig::new("pulsar://service");
    let (_endpoint, link) = rig.attached(1);
    rig.unreachable.insert("b");
    rig.detached(link, id(1), Some("pulsar://b:6650"));
    assert_eq!((rig.log().len(), rig.state(1)), (2, "backing off"));
    rig.wait_ms(100);
    assert_eq!(rig.log(), ["lookup at service:6650"]);
    rig.answer(connect_to("pulsar://service:6650"));
    let (link, ..) = rig.opened();
    rig.log();
    rig.detached(link, id(1), Some("http://b:8080"));
    rig.wait_ms(100);
    assert_eq!(rig.log(), ["lookup at service:6650"]);
}

#[test]
fn brokers_that_point_at_each_other_before_the_open_do_not_spin() {
    let mut rig = Rig::new("pulsar://service");
    let _endpoint = rig.open(1);
    rig.answer(connect_to("pulsar://b:6650"));
    let (link, ..) = rig.opens.pop_front().expect("an open");
    rig.detached(link, id(1), Some("pulsar://service:6650"));
    assert_eq!(rig.state(1), "backing off");
}

#[test]
fn a_finished_endpoint_is_forgotten_and_its_connection_is_hung_up_when_idle() {
    let mut rig = Rig::new("pulsar://service");
    let (endpoint, link) = rig.attached(1);
    EndpointRef::Producer(endpoint).fail(Error::local(ErrorKind::Closed, "test"), &mut rig.wakes);
    rig.peers.get_mut(&link).expect("up").guests.clear();
    rig.notice(link, SessionNotice::Finished(id(1)));
    assert_eq!(rig.state(1), "closed");
    rig.wait(Duration::from_secs(60));
    assert_eq!(rig.log(), ["hang up service:6650"]);
    assert!(rig.supervisor.poll_deadline().is_none());
}

#[test]
fn an_endpoint_that_is_closed_in_any_detached_state_is_forgotten() {
    for state in ["looking up", "backing off", "connecting"] {
        let mut rig = Rig::new("pulsar://service");
        let (endpoint, _created) = rig.open(1);
        if state == "connecting" {
            rig.answers = false;
            rig.answer(connect_to("pulsar://b:6650"));
        } else if state == "backing off" {
            rig.answer(lookup_refused(6));
        }
        assert_eq!(rig.state(1), state);
        EndpointRef::Producer(endpoint).close(rig.now, &mut rig.wakes);
        rig.pump();
        assert_eq!(rig.state(1), "closed");
        rig.log();
        rig.wait(Duration::from_secs(50));
        assert_eq!(rig.log(), NONE);
        if let Some((link, ask, _)) = rig.asks.pop_front() {
            rig.notice(link, SessionNotice::Answer(ask, connect_to("pulsar://service:6650")));
        }
        assert_eq!(rig.log(), NONE);
    }
}

#[test]
fn a_wrong_token_is_fetched_once_more_and_then_ends_all_who_wait() {
    let mut rig = Rig::new("pulsar://service,other");
    rig.refuses_token = true;
    rig.answers = false;
    let (_first, mut one) = rig.open(1);
    let (_second, mut two) = rig.open(2);
    rig.answers = true;
    rig.input(Input::Credentials(LinkId(1), Ok(AuthData::none())));
    let host = rig.log()[1].clone();
    assert!(host.starts_with("dial "), "{host}");
    for created in [&mut one, &mut two] {
        let error = peek(created).expect("answered").expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Authentication);
        assert!(error.to_string().contains("Failed to authenticate"), "{error}");
    }
    assert_eq!(rig.supervisor.endpoints.len(), 0);
}

#[test]
fn an_expired_token_is_replaced_without_a_word_to_the_user() {
    let mut rig = Rig::new("pulsar://service");
    rig.answers = false;
    let (_endpoint, mut created) = rig.open(1);
    rig.input(Input::Credentials(LinkId(1), Ok(AuthData::none())));
    rig.notice(LinkId(1), SessionNotice::Ended(CloseReason::Broker(ServerError::new(3, "expired"))));
    assert_eq!(rig.log(), ["fetch", "dial service:6650", "fetch"]);
    rig.answers = true;
    rig.input(Input::Credentials(LinkId(2), Ok(AuthData::none())));
    assert_eq!(rig.log(), ["dial service:6650", "lookup at service:6650"]);
    assert!(peek(&mut created).is_none());
}

#[test]
fn connect_shows_what_the_broker_says_of_itself() {
    let mut rig = Rig::new("pulsar://service");
    let (to, mut reply) = Reply::pair();
    rig.input(Input::Connect(to));
    assert_eq!(&*peek(&mut reply).expect("answered").expect("connected").address, "service:6650");
    assert_eq!(rig.log(), ["fetch", "dial service:6650"]);
}

#[test]
fn connect_dials_each_host_once_and_reports_the_last_failure() {
    let mut rig = Rig::new("pulsar://a,b,c");
    rig.unreachable.extend(["a", "b", "c"]);
    let (to, mut reply) = Reply::pair();
    rig.input(Input::Connect(to));
    let error = peek(&mut reply).expect("answered").expect_err("unreachable");
    assert_eq!(error.kind(), ErrorKind::Connection);
    let log = rig.log();
    let mut dials: Vec<&str> = log.iter().filter_map(|line| line.strip_prefix("dial ")).collect();
    let last = dials[2].to_owned();
    assert!(error.to_string().contains(&format!("connecting to {last}: connection refused")), "{error}");
    dials.sort_unstable();
    assert_eq!(dials, ["a:6650", "b:6650", "c:6650"]);
}

#[test]
fn connect_finds_the_host_that_lives() {
    let mut rig = Rig::new("pulsar://a,b,c");
    rig.unreachable.extend(["a", "b"]);
    let (to, mut reply) = Reply::pair();
    rig.input(Input::Connect(to));
    assert_eq!(&*peek(&mut reply).expect("answered").expect("connected").address, "c:6650");
    // The next one goes there straight.
    rig.log();
    let _endpoint = rig.open(1);
    assert_eq!(rig.log(), ["lookup at c:6650"]);
}

#[test]
fn connect_with_a_wrong_token_does_not_bother_the_other_hosts() {
    let mut rig = Rig::new("pulsar://a,b,c");
    rig.refuses_token = true;
    let (to, mut reply) = Reply::pair();
    rig.input(Input::Connect(to));
    let error = peek(&mut reply).expect("answered").expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Authentication);
    assert_eq!(rig.log().iter().filter(|line| line.starts_with("dial")).count(), 2);
}

#[test]
fn connect_ends_although_the_credentials_never_come() {
    let mut rig = Rig::new("pulsar://service");
    rig.answers = false;
    let (to, mut reply) = Reply::pair();
    rig.input(Input::Connect(to));
    rig.wait(Duration::from_secs(30));
    let error = peek(&mut reply).expect("answered").expect_err("late");
    assert_eq!((error.kind(), error.address()), (ErrorKind::TimedOut, Some("service:6650")));
}

#[test]
fn service_hosts_take_turns_when_they_fail() {
    let mut rig = Rig::new("pulsar://a,b");
    rig.unreachable.extend(["a", "b"]);
    let _endpoint = rig.open(1);
    rig.wait(Duration::from_secs(10));
    let dials: Vec<String> = rig.log().into_iter().filter(|line| line.starts_with("dial")).collect();
    assert!(dials.len() > 4 && dials.windows(2).all(|pair| pair[0] != pair[1]), "{dials:?}");
}

fn ask_partitions(rig: &mut Rig) -> Reply<u32> {
    let (reply, answer) = Reply::pair();
    rig.input(Input::Partitions { topic: "persistent://public/default/t".into(), reply });
    answer
}

#[test]
fn partitions_are_counted() {
    let mut rig = Rig::new("pulsar://service");
    let mut reply = ask_partitions(&mut rig);
    assert_eq!(rig.log(), ["fetch", "dial service:6650", "partitions at service:6650"]);
    rig.answer(partitions_answer(3));
    assert_eq!(peek(&mut reply), Some(Ok(3)));
    assert_eq!(rig.supervisor.questions.len() + rig.supervisor.asks.len(), 0);
}

#[test]
fn a_partition_question_is_retried_where_that_can_help() {
    let mut rig = Rig::new("pulsar://service");
    let mut reply = ask_partitions(&mut rig);
    rig.answer(partitions_refused(6));
    assert!(peek(&mut reply).is_none());
    rig.wait_ms(100);
    let (link, ..) = rig.asks[0];
    rig.end(link, "reset by peer");
    rig.wait_ms(200);
    rig.answer(partitions_refused(4));
    let error = peek(&mut reply).expect("answered").expect_err("not allowed");
    assert_eq!((error.kind(), error.topic()), (ErrorKind::Authorization, Some("persistent://public/default/t")));
}

#[test]
fn a_partition_question_ends_in_time_and_names_the_last_trouble() {
    let mut rig = Rig::new("pulsar://service");
    rig.unreachable.insert("service");
    let mut reply = ask_partitions(&mut rig);
    rig.wait_ms(29_999);
    assert!(peek(&mut reply).is_none());
    rig.wait_ms(1);
    let error = peek(&mut reply).expect("answered").expect_err("late");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(error.to_string().contains("connection refused"), "{error}");
}

#[test]
fn a_question_that_nobody_waits_for_is_not_retried() {
    let mut rig = Rig::new("pulsar://service");
    drop(ask_partitions(&mut rig));
    rig.answer(partitions_refused(6));
    rig.log();
    rig.wait(Duration::from_secs(50));
    assert_eq!(rig.log(), NONE);
    assert!(rig.supervisor.questions.is_empty());
}

#[test]
fn a_connection_that_answers_no_lookup_is_replaced_and_its_guests_stay() {
    let mut rig = Rig::new("pulsar://service");
    let (_guest, sick) = rig.attached(1);
    let (_endpoint, _created) = rig.open(2);
    for _ in 0..LOOKUP_FAILURES_MAX {
        rig.answer(lookup_refused(6));
        rig.wait(Duration::from_secs(2));
    }
    let log = rig.log();
    assert_eq!(log.iter().filter(|line| *line == "dial service:6650").count(), 1, "{log:?}");
    assert_eq!(rig.state(1), "attached");
    let (fresh, ..) = rig.asks[0];
    assert_ne!(fresh, sick);
    rig.detached(sick, id(1), None);
    assert_eq!(rig.log(), ["hang up service:6650"]);
}

#[test]
fn a_challenge_is_answered_with_fresh_credentials() {
    let mut rig = Rig::new("pulsar://service");
    let (_endpoint, link) = rig.attached(1);
    rig.notice(link, SessionNotice::Challenged);
    assert_eq!(rig.log(), ["fetch", "challenge"]);
    assert_eq!(rig.state(1), "attached");
}

/// Many producers lose their broker: one dial at a time, no more opens in flight than allowed, all come back.
#[test]
fn a_reconnect_storm_stays_in_its_bounds() {
    const PRODUCERS: u64 = 250;
    let mut rig = Rig::with("pulsar://service", |config| config.opens_in_flight_max = 10);
    let mut endpoints = Vec::new();
    let mut link = LinkId(0);
    for number in 0..PRODUCERS {
        let (endpoint, l) = rig.attached(number);
        endpoints.push(endpoint);
        link = l;
    }
    rig.unreachable.insert("service");
    rig.end(link, "the broker died");
    let died = rig.now.at;
    rig.wait(Duration::from_secs(25));
    let dials = rig.log().iter().filter(|line| line.starts_with("dial")).count();
    assert!(dials < 20, "{dials} dials in 25 s");
    rig.unreachable.clear();
    let mut busiest = 0;
    while rig.supervisor.endpoints.values().any(|attach| !matches!(attach.state, AttachState::Attached)) {
        assert!(rig.now.at < died + Duration::from_secs(200), "all are back in time");
        busiest = busiest.max(rig.asks.len() + rig.opens.len());
        if !rig.asks.is_empty() {
            rig.answer(connect_to("pulsar://service:6650"));
        } else if !rig.opens.is_empty() {
            rig.opened();
        } else {
            rig.wait_ms(10);
        }
    }
    assert_eq!(busiest, 10);
    assert_eq!(rig.log().iter().filter(|line| line.starts_with("dial")).count(), 1);
}

#[test]
fn closing_the_client_closes_the_endpoints_first_and_leaves_nothing() {
    let mut rig = Rig::new("pulsar://service");
    let (endpoint, link) = rig.attached(1);
    let (_waiting, mut created) = rig.open(2);
    let mut partitions = ask_partitions(&mut rig);
    rig.log();
    let (to, mut reply) = Reply::pair();
    rig.input(Input::CloseClient(to));
    assert_eq!(peek(&mut partitions).expect("answered").expect_err("closed").kind(), ErrorKind::Closed);
    assert_eq!(peek(&mut created).expect("answered").expect_err("closed").kind(), ErrorKind::Closed);
    assert_eq!((rig.state(1), rig.state(2)), ("attached", "closed"));
    assert!(peek(&mut reply).is_none() && !rig.supervisor.is_drained());
    // The session has written CLOSE_PRODUCER and heard of its success.
    assert!(!EndpointRef::Producer(endpoint).is_finished());
    rig.peers.get_mut(&link).expect("up").guests.clear();
    rig.notice(link, SessionNotice::Finished(id(1)));
    assert_eq!(rig.log(), ["hang up service:6650"]);
    assert_eq!(peek(&mut reply), Some(Ok(())));
    assert!(rig.supervisor.is_drained());
    assert_eq!(rig.supervisor.poll_deadline().map(|deadline| deadline.why).filter(|why| *why != "outdated"), None);

    let (_late, mut created) = rig.open(3);
    assert_eq!(peek(&mut created).expect("answered").expect_err("closed").kind(), ErrorKind::Closed);
    let mut partitions = ask_partitions(&mut rig);
    assert_eq!(peek(&mut partitions).expect("answered").expect_err("closed").kind(), ErrorKind::Closed);
    let (to, mut reply) = Reply::pair();
    rig.input(Input::CloseClient(to));
    assert_eq!(peek(&mut reply), Some(Ok(())));
}

#[test]
fn a_broker_that_does_not_answer_the_close_cannot_hold_the_client() {
    let mut rig = Rig::new("pulsar://service");
    let (endpoint, _) = rig.attached(1);
    let (to, mut reply) = Reply::pair();
    rig.input(Input::CloseClient(to));
    rig.wait_ms(29_999);
    assert!(peek(&mut reply).is_none());
    rig.wait_ms(1);
    let error = peek(&mut reply).expect("answered").expect_err("late");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(rig.supervisor.is_drained() && EndpointRef::Producer(endpoint).is_finished());
}

#[test]
fn a_supervisor_that_goes_away_tells_all_who_wait() {
    let mut rig = Rig::new("pulsar://service");
    rig.answers = false;
    let (_endpoint, mut created) = rig.open(1);
    let mut partitions = ask_partitions(&mut rig);
    drop(rig);
    assert_eq!(peek(&mut created).expect("answered").expect_err("gone").kind(), ErrorKind::Closed);
    assert_eq!(peek(&mut partitions).expect("answered").expect_err("gone").kind(), ErrorKind::Closed);
}

#[test]
fn the_same_seed_does_the_same_at_the_same_time() {
    let run = |seed| {
        let mut rig = Rig::with("pulsar://a,b,c", |config| config.seed = seed);
        rig.unreachable.extend(["a", "b", "c"]);
        let _endpoints = [rig.open(1), rig.open(2), rig.open(3)];
        let mut seen = Vec::new();
        for _ in 0..2000 {
            rig.wait_ms(10);
            let at = rig.now.at.duration_since(rig.start);
            seen.extend(rig.log().into_iter().map(|line| (at, line)));
        }
        seen
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn the_listener_goes_into_every_lookup() {
    let mut rig = Rig::with("pulsar://service", |config| config.listener_name = Some("external".to_owned()));
    let _endpoint = rig.open(1);
    let Command::Lookup(lookup) = &rig.asks[0].2 else { panic!("a lookup") };
    assert_eq!(lookup.advertised_listener_name.as_deref(), Some("external"));
}

#[test]
fn one_dead_broker_does_not_hold_up_the_topics_of_another() {
    let mut rig = Rig::with("pulsar://service", |config| config.opens_in_flight_max = 1);
    let _endpoints = [rig.open(1), rig.open(2)];
    rig.answers = false;
    rig.answer(connect_to("pulsar://dead:6650"));
    rig.answer(connect_to("pulsar://service:6650"));
    assert_eq!((rig.state(1), rig.state(2)), ("connecting", "opening"));
}

#[test]
fn an_ipv6_service_host_is_one_and_the_same_with_and_without_brackets() {
    let mut rig = Rig::new("pulsar://[::1]:6650");
    let _endpoint = rig.open(1);
    rig.log();
    rig.answer(connect_to("pulsar://[::1]:6650"));
    assert_eq!(rig.log(), ["open producer 1 #1 at [::1]:6650"]);
    let key = rig.supervisor.hosts.key();
    assert_eq!(key.logical, HostPort { host: "::1".into(), port: 6650 });
}
