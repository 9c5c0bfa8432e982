//! What is between the client's machines and the broker's: connections, the clock, and what carries out the supervisor's actions.

use super::super::clock;
use super::hostile::mangled;
use super::*;
use crate::broker::BrokerConfig;
use crate::broker::machine::{Broker, ConnId};
use crate::machine::connection::ConnectionConfig;
use crate::machine::consumer::ReceivedEntry;
use crate::machine::control::{Action, AuthData, CloseReason, ConnectionId, SessionEvent};
use crate::machine::memory::MemoryBudget;
use crate::machine::receive_memory::ReceiveBudget;
use crate::machine::session::Session;
use crate::machine::supervisor::service_hosts::Quarantine;
use crate::machine::supervisor::{Supervisor, SupervisorConfig};
use crate::machine::{Deadline, Deferred, Now, ReadyList};
use crate::wire::command::Command;
use crate::wire::frame::{Frame, Limits, cut, frames};
use crate::wire::tx::TxBuf;
use std::num::NonZeroUsize;
use std::time::Instant;

/// Rounds at one moment before that counts as an endless loop.
const ROUNDS_MAX: usize = 2_000;

/// Moments in one step of the clock.
const MOMENTS_MAX: usize = 20_000;

/// One connection.
struct Link {
    session: Session,
    conn: ConnId,
    /// Read by the client, and not a whole frame yet.
    rx: BytesMut,
    tx: TxBuf,
    /// On the way to the broker, and not a whole frame yet.
    to_broker: BytesMut,
    is_silent: bool,
    /// Since when the peer takes no bytes.
    stalled_since: Option<Instant>,
    last_request: u64,
}

/// The permits of a consumer since its last SUBSCRIBE, as they went over the wire.
#[derive(Debug, Default)]
pub(super) struct PermitTally {
    pub(super) granted: u64,
    /// Of the deliveries that came.
    pub(super) used: u64,
}

pub(super) struct Network {
    pub(super) broker: Broker,
    pub(super) now: Now,
    start: Instant,
    pub(super) ready: Arc<ReadyList>,
    pub(super) dials: DialOutcome,
    pub(super) mangles: VecDeque<Mangle>,
    /// So many frames of the client do not reach the broker.
    pub(super) swallow: u32,
    pub(super) permits: BTreeMap<u64, PermitTally>,
    /// Of all producers, and of all consumers.
    pub(super) memory: Arc<MemoryBudget>,
    pub(super) receive_memory: Arc<ReceiveBudget>,
    /// So many credentials cannot be had.
    pub(super) refused_credentials: u32,
    supervisor: Supervisor,
    links: BTreeMap<ConnectionId, Link>,
    deferred: Deferred,
    is_silent: bool,
}

impl Network {
    pub(super) fn new(choices: &mut Choices<'_>) -> Self {
        let now = clock::start();
        let mut broker = BrokerConfig::default();
        broker.acknowledgment_at_batch_index_level_enabled = choices.flag();
        broker.broker_deduplication_enabled = choices.flag();
        broker.max_stored_bytes = 1 << 20;
        broker.broker_service_url_tls = Some("pulsar+ssl://broker:6651".to_owned());
        broker.partitioned_topics.insert("persistent://public/default/p".to_owned(), 2);
        let url = *choices.pick(&["pulsar://broker:6650", "pulsar://broker:6650,other:6650"]);
        let mut config = SupervisorConfig::new(ServiceUrl::parse(url).expect("a good URL"), 4);
        config.operation_timeout = TIMEOUT;
        config.max_backoff_interval = BACKOFF_MAX;
        config.quarantine = Quarantine { initial: BACKOFF_MAX, max: BACKOFF_MAX };
        config.opens_in_flight_max = *choices.pick(&[128, 1]);
        let ready = ReadyList::new();
        let mut supervisor = Supervisor::new(config, ready.clone());
        if choices.flag() {
            supervisor.keep_notices();
        }
        let limit = |bytes| NonZeroUsize::new(bytes).expect("more than nothing");
        Self {
            broker: Broker::new(broker, "pulsar://broker:6650", now),
            now,
            start: now.at,
            memory: MemoryBudget::new(limit(2_000)),
            receive_memory: ReceiveBudget::new(limit(*choices.pick(&[1_000, 20_000]))),
            refused_credentials: 0,
            supervisor,
            ready,
            dials: DialOutcome::Connected,
            mangles: VecDeque::new(),
            swallow: 0,
            permits: BTreeMap::new(),
            links: BTreeMap::new(),
            deferred: Deferred::new(),
            is_silent: false,
        }
    }

    pub(super) fn input(&mut self, input: Input) {
        self.supervisor.handle(input, self.now, &mut self.deferred);
    }

    /// What the client says of its connections and its memory.
    pub(super) fn look(&mut self) {
        let states = self.supervisor.connection_states().state();
        assert!(states.is_closed || states.to_string().lines().count() >= states.connections.len(), "a line for each");
        let usage = self.memory.usage();
        told::check_line(&usage);
        for notice in self.supervisor.take_notices() {
            told::check_line(&format!("{notice:?}"));
        }
    }

    /// Works on an endpoint as the application does.
    pub(super) fn deferred(&mut self) -> &mut Deferred {
        &mut self.deferred
    }

    pub(super) fn some_link(&self, choices: &mut Choices<'_>) -> Option<ConnectionId> {
        let at = choices.below(4).min(self.links.len().saturating_sub(1));
        self.links.keys().nth(at).copied()
    }

    /// The id of the last request of the client on a connection.
    pub(super) fn last_request(&self, link: ConnectionId) -> u64 {
        self.links.get(&link).map_or(0, |link| link.last_request)
    }

    /// The peer of a connection takes no bytes, or takes them again.
    pub(super) fn stall(&mut self, choices: &mut Choices<'_>) {
        let Some(id) = self.some_link(choices) else { return };
        if let Some(link) = self.links.get_mut(&id) {
            link.stalled_since = link.stalled_since.xor(Some(self.now.at));
        }
    }

    pub(super) fn be_silent(&mut self) {
        (self.is_silent, self.dials) = (true, DialOutcome::Silent);
        self.links.values_mut().for_each(|link| link.is_silent = true);
    }

    pub(super) fn be_honest(&mut self) {
        (self.dials, self.swallow, self.refused_credentials) = (DialOutcome::Connected, 0, 0);
        self.mangles.clear();
        for id in self.links.keys().copied().collect::<Vec<_>>() {
            self.end(id, "the broker becomes honest");
        }
    }

    /// Bytes that the client reads on a connection.
    pub(super) fn deliver(&mut self, link: Option<ConnectionId>, bytes: &[u8]) {
        let Some(id) = link else { return };
        let Some(link) = self.links.get_mut(&id).filter(|link| !link.is_silent) else { return };
        tally_deliveries(&mut self.permits, &link.rx, bytes);
        link.rx.extend_from_slice(bytes);
        if let Err(reason) = link.session.handle_read(&mut link.rx, self.now, &mut self.deferred) {
            self.end_with(id, reason);
        }
    }

    pub(super) fn end(&mut self, link: ConnectionId, why: &str) {
        self.end_with(link, lost(why));
    }

    fn end_with(&mut self, id: ConnectionId, reason: CloseReason) {
        let Some(link) = self.links.remove(&id) else { return };
        self.broker.disconnect(link.conn);
        for event in link.session.end(reason, self.now, &mut self.deferred) {
            self.input(Input::Session(id, event));
        }
    }

    /// Until a round finds nothing to do.
    pub(super) fn settle(&mut self) {
        for round in 0.. {
            assert!(round < ROUNDS_MAX, "the machines have no rest");
            let mut is_busy = self.run_supervisor();
            for id in self.links.keys().copied().collect::<Vec<_>>() {
                is_busy |= self.run_link(id);
            }
            is_busy |= self.run_broker();
            self.deferred.fire();
            if !is_busy {
                break;
            }
        }
    }

    fn run_supervisor(&mut self) -> bool {
        self.supervisor.handle_ready(None, self.now, &mut self.deferred);
        let mut is_busy = false;
        while let Some(action) = self.supervisor.poll_action() {
            is_busy = true;
            self.carry_out(action);
        }
        is_busy
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::FetchCredentials(id, ..) => {
                let is_refused = self.refused_credentials.checked_sub(1).map(|left| self.refused_credentials = left);
                let credentials = match is_refused {
                    Some(()) => Err(Error::network("no credentials")),
                    None => Ok(AuthData::none()),
                };
                self.input(Input::Credentials(id, credentials));
            }
            Action::Dial { connection, key, credentials } => {
                if self.dials == DialOutcome::Refused {
                    let refused = CloseReason::Dial(Error::network("connection refused"));
                    return self.input(Input::Session(connection, SessionEvent::Ended(refused)));
                }
                let config = ConnectionConfig {
                    address: key.logical.to_string().into(),
                    tls: key.tls,
                    proxy_to_broker_url: key.proxy_to_broker_url(),
                    client_version: "fuzz".to_owned(),
                    keep_alive_interval: KEEP_ALIVE,
                    handshake_timeout: Duration::MAX,
                    operation_timeout: TIMEOUT,
                };
                let link = Link {
                    session: Session::new(config, credentials, self.ready.clone(), self.now),
                    conn: self.broker.connect(self.now),
                    rx: BytesMut::new(),
                    tx: TxBuf::new(),
                    to_broker: BytesMut::new(),
                    is_silent: self.is_silent || self.dials == DialOutcome::Silent,
                    stalled_since: None,
                    last_request: 0,
                };
                self.links.insert(connection, link);
            }
            Action::Command(id, command) => {
                let Some(link) = self.links.get_mut(&id) else { return };
                if let Err(reason) = link.session.handle_command(command, self.now, &mut self.deferred) {
                    self.end_with(id, reason);
                }
            }
            Action::Disconnect(id) => self.end_with(id, CloseReason::Local("the client is closed")),
        }
    }

    fn run_link(&mut self, id: ConnectionId) -> bool {
        let Some(link) = self.links.get_mut(&id) else { return false };
        let unwritten = link.tx.len();
        if let Err(reason) = link.session.poll_transmit(&mut link.tx, self.now, None, &mut self.deferred) {
            self.end_with(id, reason);
            return true;
        }
        let mut is_busy = link.tx.len() != unwritten || link.session.wants_transmit(&link.tx);
        let events: Vec<_> = std::iter::from_fn(|| link.session.poll_event()).collect();
        let bytes = if link.stalled_since.is_none() { link.tx.take_all() } else { Bytes::new() };
        is_busy |= !events.is_empty() || !bytes.is_empty();
        events.into_iter().for_each(|event| self.input(Input::Session(id, event)));
        self.pass_on(id, bytes);
        is_busy
    }

    /// What the client writes: whole frames, each of which reaches the broker or does not.
    fn pass_on(&mut self, id: ConnectionId, bytes: Bytes) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let mut written = BytesMut::from(&bytes[..]);
        // A CONNECTED of the script may have allowed frames of any size.
        let limits = Limits::for_message_size(u32::MAX);
        let Some(run) = cut(&mut written, &limits).expect("the client writes sound frames") else { return };
        assert!(written.is_empty(), "the client writes whole frames");
        for frame in frames(run) {
            let frame = frame.expect("the client writes sound frames");
            match &frame {
                Frame::Other(Command::Subscribe(subscribe)) => {
                    self.permits.insert(subscribe.consumer_id, PermitTally::default());
                }
                Frame::Other(Command::Flow(flow)) => {
                    assert!(flow.message_permits > 0, "a broker ends the connection for FLOW 0");
                    let tally = self.permits.entry(flow.consumer_id).or_default();
                    tally.granted += u64::from(flow.message_permits);
                }
                _ => {}
            }
            if let Frame::Other(command) = &frame {
                link.last_request = command.request_id().unwrap_or(link.last_request);
            }
            if link.is_silent {
                continue;
            }
            match self.swallow.checked_sub(1) {
                Some(left) => self.swallow = left,
                None => frame.encode(&mut link.to_broker),
            }
        }
        self.broker.receive(link.conn, &mut link.to_broker, self.now);
    }

    fn run_broker(&mut self) -> bool {
        let ready = self.broker.take_ready();
        for conn in &ready {
            let link = self.links.iter().find(|(_, link)| link.conn == *conn).map(|(id, _)| *id);
            let mut out = TxBuf::new();
            self.broker.poll_transmit(*conn, &mut out);
            let is_closing = self.broker.closing(*conn);
            let Some(id) = link else { continue };
            for frame in whole_frames(&out.take_all()) {
                for bytes in mangled(&mut self.mangles, frame) {
                    self.deliver(Some(id), &bytes);
                }
            }
            if is_closing {
                self.end(id, "the broker closed the connection");
            }
        }
        !ready.is_empty()
    }

    fn next_moment(&self) -> Option<Instant> {
        let sessions = self.links.values().map(|link| link.session.poll_deadline());
        let all = sessions.chain([self.supervisor.poll_deadline(), self.broker.poll_deadline()]);
        let stalls = self.links.values().filter_map(|link| Some(link.stalled_since? + KEEP_ALIVE));
        all.fold(None, Deadline::earlier).map(|deadline| deadline.at).into_iter().chain(stalls).min()
    }

    /// Lets time pass, moment by moment.
    pub(super) fn advance(&mut self, by: Duration) {
        let end = self.now.at + by;
        self.settle();
        for moment in 0.. {
            assert!(moment < MOMENTS_MAX, "deadlines without end");
            let due = self.next_moment().filter(|at| *at <= end);
            let at = due.unwrap_or(end).max(self.now.at);
            self.now = clock::moment(self.start, at);
            if due.is_none() {
                break;
            }
            self.handle_due();
            self.settle();
        }
    }

    fn handle_due(&mut self) {
        let now = self.now;
        let is_due = |deadline: Option<Deadline>| deadline.is_some_and(|deadline| deadline.at <= now.at);
        if is_due(self.supervisor.poll_deadline()) {
            self.supervisor.handle_deadline(now, &mut self.deferred);
        }
        if is_due(self.broker.poll_deadline()) {
            self.broker.handle_deadline(now);
        }
        for id in self.links.keys().copied().collect::<Vec<_>>() {
            let Some(link) = self.links.get_mut(&id) else { continue };
            let mut ended = Ok(());
            if is_due(link.session.poll_deadline()) {
                ended = link.session.handle_deadline(now, &mut self.deferred);
            }
            if link.stalled_since.is_some_and(|since| since + KEEP_ALIVE <= now.at) {
                ended = Err(CloseReason::Silent { after: KEEP_ALIVE });
            }
            if let Err(reason) = ended {
                self.end_with(id, reason);
            }
        }
    }
}

/// The frames of a stream of whole ones.
fn whole_frames(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    while let Some(size) = bytes.first_chunk::<4>() {
        let (frame, rest) = bytes.split_at((u32::from_be_bytes(*size) as usize + 4).min(bytes.len()));
        all.push(frame);
        bytes = rest;
    }
    all
}

/// Counts the permits of the deliveries that these bytes complete.
fn tally_deliveries(tallies: &mut BTreeMap<u64, PermitTally>, before: &[u8], bytes: &[u8]) {
    let mut all = BytesMut::from(before);
    all.extend_from_slice(bytes);
    while let Ok(Some(run)) = cut(&mut all, &Limits::default()) {
        for frame in frames(run).map_while(Result::ok) {
            if let Frame::Message { head, entry } = frame {
                let tally = tallies.entry(head.consumer_id).or_default();
                tally.used += u64::from(ReceivedEntry::read(head, entry).permits);
            }
        }
    }
}
