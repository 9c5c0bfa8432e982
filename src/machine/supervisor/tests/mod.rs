//! Real producers, the real supervisor, and in place of the sessions a few lines that answer actions with events, in
//! virtual time. There is a test for each edge of the diagram of [`ManagedState`], and for the rules that span several.

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::*;
use crate::error::{Result, ServerError};
use crate::id::ProducerId;
use crate::machine::connection::error::RequestError;
use crate::machine::connection::peer::PeerInfo;
use crate::machine::control::{Attempt, AuthData, CloseReason, HostPort, SessionCommand, closed_by_broker};
use crate::machine::producer::{Producer, ProducerConfig, ProducerCreated};
use crate::machine::supervisor::managed_endpoint::ManagedState;
use crate::machine::supervisor::pool::LOOKUP_FAILURES_MAX;
use crate::machine::{Endpoint, EndpointRef, Reply};
use crate::pb;
use crate::pb::command_lookup_topic_response::LookupType;
use crate::wire::command::Command;

mod closing;
mod clusters;
mod credentials;
mod dials;
mod lookups;
mod opens;
mod queries;

/// One connection as the fake sessions see it.
struct Peer {
    address: String,
    ready: Arc<ReadyList>,
    attached: BTreeMap<EndpointId, (EndpointRef, Attempt)>,
}

struct Harness {
    supervisor: Supervisor,
    ready: Arc<ReadyList>,
    now: Now,
    start: Instant,
    deferred: Deferred,
    peers: BTreeMap<ConnectionId, Peer>,
    asks: VecDeque<(ConnectionId, RequestToken, Command)>,
    opens: VecDeque<(ConnectionId, EndpointId, Attempt)>,
    /// Hosts that refuse connections.
    unreachable: BTreeSet<&'static str>,
    /// Whether dials end with `Up` at once, and credentials are there at once.
    responds: bool,
    refuses_token: bool,
    log: Vec<String>,
}

fn peek<T>(reply: &mut Reply<T>) -> Option<Result<T>> {
    match Pin::new(reply).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

fn server_error(code: i32) -> RequestError {
    RequestError::Server(ServerError::new(code, "said the broker"))
}

fn lookup_response(kind: LookupType, url: &str) -> pb::CommandLookupTopicResponse {
    pb::CommandLookupTopicResponse {
        response: Some(kind as i32),
        broker_service_url: Some(url.to_owned()),
        ..Default::default()
    }
}

fn connect_to(url: &str) -> Response {
    Ok(Box::new(Command::LookupResponse(lookup_response(LookupType::Connect, url))))
}

fn refused(code: i32) -> Response {
    Err(server_error(code))
}

fn partitions_response(partitions: u32) -> Response {
    use pb::command_partitioned_topic_metadata_response::LookupType;
    Ok(Box::new(Command::PartitionedMetadataResponse(pb::CommandPartitionedTopicMetadataResponse {
        response: Some(LookupType::Success as i32),
        partitions: Some(partitions),
        ..Default::default()
    })))
}

impl Harness {
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
            deferred: Deferred::new(),
            peers: BTreeMap::new(),
            asks: VecDeque::new(),
            opens: VecDeque::new(),
            unreachable: BTreeSet::new(),
            responds: true,
            refuses_token: false,
            log: Vec::new(),
        }
    }

    fn input(&mut self, input: Input) {
        self.supervisor.handle(input, self.now, &mut self.deferred);
        self.pump();
    }

    fn notice(&mut self, connection: ConnectionId, notice: SessionEvent) {
        self.input(Input::Session(connection, notice));
    }

    /// Carries out actions until there are none.
    fn pump(&mut self) {
        loop {
            self.supervisor.handle_ready(None, self.now, &mut self.deferred);
            let Some(action) = self.supervisor.poll_action() else { break };
            let (now, deferred) = (self.now, &mut self.deferred);
            match action {
                Action::FetchCredentials(connection, ..) => {
                    self.log.push("fetch".to_owned());
                    if self.responds {
                        self.supervisor.handle(Input::Credentials(connection, Ok(AuthData::none())), now, deferred);
                    }
                }
                Action::Dial { connection, key, .. } => {
                    let through = key.proxy_to_broker_url().map(|url| format!(" for {url}")).unwrap_or_default();
                    self.log.push(format!("dial {}{through}", key.physical));
                    let address = key.logical.to_string();
                    let peer = Peer { address: address.clone(), ready: ReadyList::new(), attached: BTreeMap::new() };
                    self.peers.insert(connection, peer);
                    let notice = if self.unreachable.contains(key.physical.host.as_ref()) {
                        let refused = format!("connecting to {}: connection refused", key.physical);
                        SessionEvent::Ended(CloseReason::Dial(Error::network(refused)))
                    } else if self.refuses_token {
                        let refused = ServerError::new(3, "Failed to authenticate");
                        SessionEvent::Ended(CloseReason::Broker(refused))
                    } else if self.responds {
                        SessionEvent::Connected(peer_info(&address))
                    } else {
                        continue;
                    };
                    self.supervisor.handle(Input::Session(connection, notice), now, deferred);
                }
                Action::Command(connection, SessionCommand::Request(ask, command)) => {
                    let (name, authoritative) = match &*command {
                        Command::Lookup(lookup) => {
                            ("lookup", if lookup.authoritative() { " (authoritative)" } else { "" })
                        }
                        Command::PartitionedMetadata(_) => ("partitions", ""),
                        other => (other.name(), ""),
                    };
                    self.log.push(format!("{name} at {}{authoritative}", self.peers[&connection].address));
                    self.asks.push_back((connection, ask, *command));
                }
                Action::Command(connection, SessionCommand::Open(endpoint, attempt)) => {
                    let peer = self.peers.get_mut(&connection).expect("it was dialed");
                    let id = endpoint.id();
                    self.log.push(format!("open {id} #{} at {}", attempt.0, peer.address));
                    endpoint.move_to(&peer.ready, deferred);
                    endpoint.open_request(&peer_info(&peer.address), now).expect("a producer needs nothing special");
                    peer.attached.insert(id, (endpoint, attempt));
                    self.opens.push_back((connection, id, attempt));
                }
                Action::Command(connection, SessionCommand::End(reason)) => {
                    let address = self.give_all_back(connection).expect("it was dialed");
                    self.log.push(format!("end {address}"));
                    let ended = Input::Session(connection, SessionEvent::Ended(reason));
                    self.supervisor.handle(ended, self.now, &mut self.deferred);
                }
                Action::Command(_, SessionCommand::AuthResponse(_)) => self.log.push("challenge".to_owned()),
                Action::Disconnect(connection) => {
                    // One that was told to end may have done so.
                    if let Some(address) = self.give_all_back(connection) {
                        self.log.push(format!("hang up {address}"));
                    }
                }
            }
        }
        self.deferred.fire();
    }

    fn log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    /// Lets time pass, with everything that falls due on the way.
    fn wait(&mut self, time: Duration) {
        let until = self.now.at + time;
        while let Some(deadline) = self.supervisor.poll_deadline().filter(|deadline| deadline.at <= until) {
            self.now.at = self.now.at.max(deadline.at);
            self.supervisor.handle_deadline(self.now, &mut self.deferred);
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
        self.input(Input::Open(endpoint.clone()));
        (endpoint, reply)
    }

    /// Answers the oldest question.
    fn respond(&mut self, outcome: Response) {
        let (connection, ask, _) = self.asks.pop_front().expect("a question");
        self.notice(connection, SessionEvent::Response(ask, outcome));
    }

    /// The oldest open succeeds.
    fn opened(&mut self) -> (ConnectionId, EndpointId, Attempt) {
        let (connection, id, attempt) = self.opens.pop_front().expect("an open");
        let peer = &self.peers[&connection];
        let (producer, _) = &peer.attached[&id];
        let success = pb::CommandProducerSuccess { producer_name: "made-up".to_owned(), ..Default::default() };
        let info = peer_info(&peer.address);
        producer.on_attached(&success.into(), &info, self.now, &mut self.deferred);
        self.notice(connection, SessionEvent::Opened(id, attempt));
        (connection, id, attempt)
    }

    /// The session gives a guest up.
    fn give_back(&mut self, connection: ConnectionId, id: EndpointId) -> Attempt {
        let (endpoint, attempt) =
            self.peers.get_mut(&connection).and_then(|peer| peer.attached.remove(&id)).expect("it is a guest");
        endpoint.move_to(&self.ready, &mut self.deferred);
        endpoint.on_detached(Some(&closed_by_broker()), self.now, &mut self.deferred);
        attempt
    }

    fn give_all_back(&mut self, connection: ConnectionId) -> Option<String> {
        let peer = self.peers.remove(&connection)?;
        for (endpoint, _) in peer.attached.into_values() {
            endpoint.move_to(&self.ready, &mut self.deferred);
            endpoint.on_detached(Some(&closed_by_broker()), self.now, &mut self.deferred);
        }
        self.asks.retain(|(asked, ..)| *asked != connection);
        self.opens.retain(|(opening, ..)| *opening != connection);
        Some(peer.address)
    }

    /// The oldest open fails.
    fn open_fails(&mut self, error: RequestError) {
        let (connection, id, _) = self.opens.pop_front().expect("an open");
        let attempt = self.give_back(connection, id);
        self.notice(connection, SessionEvent::OpenFailed(id, attempt, error));
    }

    fn detached(&mut self, connection: ConnectionId, id: EndpointId, url: Option<&str>) {
        let attempt = self.give_back(connection, id);
        self.notice(connection, SessionEvent::Detached(id, attempt, url.map(str::to_owned)));
    }

    fn migrated(&mut self, connection: ConnectionId, id: EndpointId, url: Option<&str>) {
        let attempt = self.give_back(connection, id);
        self.notice(connection, SessionEvent::Migrated(id, attempt, url.map(str::to_owned)));
    }

    fn switch(&mut self, cluster: u32, url: &str) {
        self.input(Input::SwitchCluster(ClusterId(cluster), ServiceUrl::parse(url).expect("a good URL")));
    }

    fn end(&mut self, connection: ConnectionId, why: &str) {
        self.give_all_back(connection);
        self.notice(connection, SessionEvent::Ended(CloseReason::Io(Error::network(why))));
    }

    /// An endpoint that is attached to the service host itself.
    fn attached(&mut self, number: u64) -> (Arc<Endpoint<Producer>>, ConnectionId) {
        let (endpoint, mut created) = self.open(number);
        self.respond(connect_to("pulsar://service:6650"));
        let (connection, ..) = self.opened();
        assert!(matches!(peek(&mut created), Some(Ok(_))));
        self.log();
        (endpoint, connection)
    }

    fn state(&self, number: u64) -> &'static str {
        match self.supervisor.endpoints.get(&id(number)).map(|managed| &managed.state) {
            Some(ManagedState::LookingUp { .. }) => "looking up",
            Some(ManagedState::Connecting) => "connecting",
            Some(ManagedState::Opening) => "opening",
            Some(ManagedState::Attached) => "attached",
            Some(ManagedState::BackingOff) => "backing off",
            None => "closed",
        }
    }
}

fn ask_partitions(harness: &mut Harness) -> Reply<u32> {
    let (reply_to, reply) = Reply::pair();
    let partitions = query::partitions(&"persistent://public/default/t".into());
    harness.input(Input::Query(partitions.with_reply(reply_to)));
    reply
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
