//! The broker without sockets: frames of connections in, frames for connections and deadlines out.
//!
//! Call order: any input ([`connect`](Broker::connect), [`receive`](Broker::receive), [`handle`](Broker::handle),
//! [`disconnect`](Broker::disconnect), [`handle_deadline`](Broker::handle_deadline), or one of the operator's calls),
//! then [`take_ready`](Broker::take_ready) and for each connection it names [`poll_transmit`](Broker::poll_transmit)
//! and [`closing`](Broker::closing), then [`poll_deadline`](Broker::poll_deadline).

mod injection;
pub(crate) mod timers;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bytes::BytesMut;

use crate::broker::commands::schema::Schemas;
use crate::broker::commands::takeover::Parked;
use crate::broker::config::BrokerConfig;
use crate::broker::conformance::{Judge, Rule, Violation};
use crate::broker::connections::{Connections, State};
use crate::broker::dispatch::{self, Context};
use crate::broker::machine::timers::{Timer, Timers};
use crate::broker::topics::topic::Topic;
use crate::machine::{Deadline, Now};
use crate::pb::{self, ServerError};
use crate::topic::TopicName;
use crate::wire::command::{Command, Sender};
use crate::wire::error::DecodeError;
use crate::wire::frame::{Frame, Limits, cut, frames};
use crate::wire::tx::TxBuf;

/// Topics of one broker; creating one more is refused.
const TOPICS_MAX: usize = 100_000;

/// A connection of this broker, numbered from 1 in order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A whole broker. See the [module](self).
pub struct Broker {
    pub(crate) config: BrokerConfig,
    /// What LOOKUP answers.
    pub(crate) url: String,
    pub(crate) conns: Connections,
    pub(crate) topics: BTreeMap<Arc<str>, Topic>,
    /// Partitioned topics by their base name.
    pub(crate) partitioned: BTreeMap<String, u32>,
    /// Namespaces that a LOOKUP made this broker the owner of.
    pub(crate) owned: BTreeSet<String>,
    /// Topics looked up since they were loaded.
    pub(crate) looked_up: BTreeSet<Arc<str>>,
    pub(crate) schemas: Schemas,
    pub(crate) parked: Vec<Parked>,
    pub(crate) judge: Judge,
    pub(crate) timers: Timers,
    pub(crate) next_ledger: i64,
    pub(crate) next_name: u64,
    pub(crate) next_check: u64,
    /// Bytes of entries over all topics.
    pub(crate) stored_bytes: usize,
    /// The latest reading any input brought.
    pub(crate) now: Now,
    limits: Limits,
}

impl Broker {
    /// A broker without connections; `url` is what LOOKUP answers, as in `pulsar://127.0.0.1:6650`.
    pub fn new(config: BrokerConfig, url: impl Into<String>, now: Now) -> Self {
        let mut broker = Self {
            url: url.into(),
            conns: Connections::new(config.tx_bytes_max),
            topics: BTreeMap::new(),
            partitioned: BTreeMap::new(),
            owned: BTreeSet::new(),
            looked_up: BTreeSet::new(),
            schemas: Schemas::default(),
            parked: Vec::new(),
            judge: Judge::default(),
            timers: Timers::default(),
            next_ledger: 1,
            next_name: 0,
            next_check: 0,
            stored_bytes: 0,
            now,
            limits: Limits::for_message_size(config.max_message_size),
            config,
        };
        for (topic, partitions) in broker.config.partitioned.clone() {
            broker.create_partitioned_topic(&topic, partitions);
        }
        broker
    }

    /// A client connected.
    pub fn connect(&mut self, now: Now) -> ConnId {
        self.now = now;
        let conn = self.conns.add();
        self.arm_keep_alive(conn);
        conn
    }

    /// Bytes came: whole frames are taken off `rx` and handled. Bad bytes end the connection.
    pub fn receive(&mut self, conn: ConnId, rx: &mut BytesMut, now: Now) {
        let ends = self.limit_received(rx);
        let before = rx.len();
        self.receive_frames(conn, rx, now);
        self.count_received(before - rx.len());
        if ends {
            self.conns.cut(conn);
        }
    }

    fn receive_frames(&mut self, conn: ConnId, rx: &mut BytesMut, now: Now) {
        loop {
            match cut(rx, &self.limits) {
                Ok(Some(run)) => {
                    for frame in frames(run) {
                        match frame {
                            Ok(frame) => self.handle(conn, frame, now),
                            Err(error) => return self.unreadable(conn, &error),
                        }
                    }
                }
                Ok(None) => return,
                Err(error) => return self.unreadable(conn, &error),
            }
        }
    }

    /// One frame came.
    pub fn handle(&mut self, conn: ConnId, frame: Frame, now: Now) {
        self.now = now;
        let Some(connection) = self.conns.get_mut(conn) else { return };
        if connection.state == State::Closing {
            return;
        }
        connection.pinged = false;
        if let Some(check) = connection.liveness_check.take() {
            self.found_alive(check);
        }
        match self.strike(conn, &frame) {
            None => self.serve(conn, frame),
            Some(effect) => self.serve_struck(conn, frame, effect),
        }
    }

    /// Carries a frame out.
    pub(crate) fn serve(&mut self, conn: ConnId, frame: Frame) {
        match frame {
            Frame::Send { head, entry } => {
                if self.is_connected(conn, "SEND") {
                    self.on_send(conn, &head, &entry);
                }
            }
            Frame::Other(command) => self.on_command(conn, command),
            Frame::Receipt(_) | Frame::Message { .. } => {
                self.fail(conn, Rule::ServerOnlyCommand, || frame.name().to_owned());
            }
            Frame::Unknown { command_type } => {
                self.fail(conn, Rule::UnreadableFrame, || format!("unknown command type {command_type}"));
            }
        }
    }

    /// The connection is gone. Its producers and consumers leave, at the time of the latest input.
    pub fn disconnect(&mut self, conn: ConnId) {
        let Some(connection) = self.conns.remove(conn) else { return };
        self.drop_endpoints(conn, connection.producers, connection.consumers);
        self.found_gone(conn);
    }

    /// Moves what is to be written to the end of `out`, and delivers what had been waiting for room.
    pub fn poll_transmit(&mut self, conn: ConnId, out: &mut TxBuf) {
        loop {
            let Some(connection) = self.conns.get_mut(conn) else { return };
            if out.len() >= self.config.tx_bytes_max {
                return;
            }
            if connection.mute {
                return;
            }
            let starved = std::mem::take(&mut connection.starved);
            let mut bytes = connection.take_out();
            self.limit_sent(conn, &mut bytes);
            out.flat().extend_from_slice(&bytes);
            if !starved {
                return;
            }
            self.pump_connection(conn);
        }
    }

    /// Connections that have got something to write, or have to be closed, since the last call.
    pub fn take_ready(&mut self) -> Vec<ConnId> {
        self.settle_faults();
        self.conns.take_ready()
    }

    /// Whether the connection ends as soon as what [`poll_transmit`](Self::poll_transmit) gives is written.
    pub fn closing(&self, conn: ConnId) -> bool {
        self.conns.get(conn).is_none_or(|connection| connection.state == State::Closing)
    }

    /// When [`handle_deadline`](Self::handle_deadline) has something to do.
    pub fn poll_deadline(&self) -> Option<Deadline> {
        self.timers.deadline()
    }

    /// Does what is due at `now`.
    pub fn handle_deadline(&mut self, now: Now) {
        self.now = now;
        while let Some(timer) = self.timers.take_due(now) {
            match timer {
                Timer::KeepAlive(conn) => self.keep_alive_interval(conn),
                Timer::AuthRefresh(conn) => self.refresh_auth(conn),
                Timer::Liveness { target, check } => self.found_silent(target, check),
                Timer::Failover { topic, subscription, turn } => self.failover_due(&topic, &subscription, turn),
                Timer::Late { conn, bytes } => self.conns.raw(conn, &bytes),
                Timer::Delayed { topic, subscription } => {
                    let sub = self.topics.get_mut(&topic).and_then(|topic| topic.subscriptions.get_mut(&subscription));
                    if let Some(sub) = sub {
                        dispatch::wake_delayed(sub, now.wall_ms);
                        self.pump(&topic, Some(&subscription));
                    }
                }
            }
        }
    }

    /// The rules that clients broke so far.
    pub fn violations(&self) -> &[Violation] {
        self.judge.violations()
    }

    /// Forgets them.
    pub fn clear_violations(&mut self) {
        self.judge.clear();
    }

    /// Bytes waiting for one connection at which delivery to it stops; its driver stops reading there as well.
    pub fn tx_bytes_max(&self) -> usize {
        self.config.tx_bytes_max
    }

    /// The limits of a frame on this broker's connections.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    fn on_command(&mut self, conn: ConnId, command: Command) {
        match command {
            Command::Ping(_) => return self.conns.pong(conn),
            Command::Pong(_) => return,
            Command::Connect(connect) => return self.on_connect(conn, connect),
            _ => {}
        }
        if !self.is_connected(conn, command.name()) {
            return;
        }
        if command.sender() == Sender::Broker {
            return self.fail(conn, Rule::ServerOnlyCommand, || command.name().to_owned());
        }
        self.check_version(conn, &command);
        match command {
            Command::AuthResponse(response) => self.on_auth_response(conn, response),
            Command::PartitionedMetadata(request) => self.on_partitioned_metadata(conn, &request),
            Command::Lookup(request) => self.on_lookup(conn, &request),
            Command::Producer(request) => self.on_producer(conn, request, None),
            Command::CloseProducer(request) => self.on_close_producer(conn, &request),
            Command::Subscribe(request) => self.on_subscribe(conn, request, false),
            Command::CloseConsumer(request) => self.on_close_consumer(conn, &request),
            Command::Unsubscribe(request) => self.on_unsubscribe(conn, &request),
            Command::Flow(flow) => self.on_flow(conn, &flow),
            Command::Ack(ack) => self.on_ack(conn, &ack),
            Command::RedeliverUnacknowledgedMessages(request) => self.on_redeliver(conn, &request),
            Command::Seek(request) => self.on_seek(conn, &request),
            Command::GetLastMessageId(request) => self.on_get_last_message_id(conn, &request),
            Command::ConsumerStats(request) => self.on_consumer_stats(conn, &request),
            Command::GetTopicsOfNamespace(request) => self.on_get_topics(conn, &request),
            Command::WatchTopicList(request) => self.on_watch_topic_list(conn, &request),
            Command::WatchTopicListClose(request) => self.on_watch_close(conn, &request),
            Command::GetSchema(request) => self.on_get_schema(conn, &request),
            Command::GetOrCreateSchema(request) => self.on_get_or_create_schema(conn, request),
            Command::EndTxn(request) if request.txn_action.is_none() => {
                self.fail(conn, Rule::IncompleteRequest, || "END_TXN without txn_action".to_owned());
            }
            other => match other.request_id() {
                Some(request_id) => {
                    let text = format!("{} is not served: transactions are off", other.name());
                    self.error(conn, request_id, ServerError::NotAllowedError, text);
                }
                None => self.fail(conn, Rule::UnreadableFrame, || format!("{} from a client", other.name())),
            },
        }
    }

    /// Whether the handshake is done; ends the connection if not.
    fn is_connected(&mut self, conn: ConnId, name: &'static str) -> bool {
        let connected = self.conns.get(conn).is_some_and(|connection| connection.state == State::Connected);
        if !connected {
            self.fail(conn, Rule::Handshake, || format!("{name} before CONNECTED"));
        }
        connected
    }

    fn check_version(&mut self, conn: ConnId, command: &Command) {
        let needed = version_of(command);
        let version = self.conns.get(conn).map_or(0, |connection| connection.version);
        if version < needed {
            let name = command.name();
            self.judge.record(conn.0, Rule::AboveVersion, || format!("{name} needs version {needed}, not {version}"));
        }
    }

    fn unreadable(&mut self, conn: ConnId, error: &DecodeError) {
        self.fail(conn, Rule::UnreadableFrame, || error.to_string());
    }

    /// Records what the client did and ends its connection without an answer.
    pub(crate) fn fail(&mut self, conn: ConnId, rule: Rule, detail: impl FnOnce() -> String) {
        self.judge.record(conn.0, rule, detail);
        self.conns.close(conn);
    }

    pub(crate) fn error(&mut self, conn: ConnId, request_id: u64, error: ServerError, message: impl Into<String>) {
        let error = pb::CommandError { request_id, error: error.into(), message: message.into() };
        self.conns.send(conn, &error.into());
    }

    pub(crate) fn success(&mut self, conn: ConnId, request_id: u64) {
        self.conns.send(conn, &pb::CommandSuccess { request_id, schema: None }.into());
    }

    /// Whether this connection's role may do anything at all.
    pub(crate) fn is_authorized(&self, conn: ConnId) -> bool {
        self.conns.get(conn).is_some_and(|connection| connection.superuser)
    }

    /// The topic, made if it does not exist and `create` allows it.
    pub(crate) fn load_topic(&mut self, name: &TopicName, create: bool) -> Option<Arc<str>> {
        if let Some((known, _)) = self.topics.get_key_value(name.as_str()) {
            return Some(Arc::clone(known));
        }
        let made = create && self.config.auto_create_topics && self.may_exist(name);
        made.then(|| self.make_topic(name))
    }

    /// Whether there is room for one more topic, and its name is not that of a partition beyond the last.
    pub(crate) fn may_exist(&self, name: &TopicName) -> bool {
        let beyond_last = name.partition_index().is_some_and(|index| {
            self.partitioned.get(name.base().as_str()).is_some_and(|partitions| index >= *partitions)
        });
        !beyond_last && self.topics.len() < TOPICS_MAX
    }

    pub(crate) fn make_topic(&mut self, name: &TopicName) -> Arc<str> {
        let key: Arc<str> = Arc::from(name.as_str());
        self.topics.insert(Arc::clone(&key), Topic::new(name.clone(), self.next_ledger));
        self.next_ledger += 1;
        self.topic_list_changed(name, true);
        key
    }

    /// Delivers what can be delivered on a topic: to one subscription, or to all.
    pub(crate) fn pump(&mut self, topic: &Arc<str>, only: Option<&Arc<str>>) {
        let Some(found) = self.topics.get_mut(topic) else { return };
        let context = Context {
            now_ms: self.now.wall_ms,
            partition: found.partition(),
            unacked_messages_max: self.config.unacked_messages_max,
            broker_entry_metadata: self.config.broker_entry_metadata,
            damaged: self.config.damaged_entries,
        };
        let (log, terminated) = (&found.log, found.terminated);
        for (name, sub) in &mut found.subscriptions {
            if only.is_some_and(|only| only != name) {
                continue;
            }
            if let Some(due_ms) = dispatch::dispatch(sub, log, &mut self.conns, &context) {
                let wait = std::time::Duration::from_millis(due_ms.saturating_sub(self.now.wall_ms));
                if let Some(at) = self.now.at.checked_add(wait) {
                    let timer = Timer::Delayed { topic: Arc::clone(topic), subscription: Arc::clone(name) };
                    self.timers.set(at, timer);
                }
            }
            if terminated && sub.cursor.mark() >= log.end() {
                for consumer in sub.consumers.iter_mut().filter(|consumer| consumer.flowed && !consumer.told_end) {
                    consumer.told_end = true;
                    let notice = pb::CommandReachedEndOfTopic { consumer_id: consumer.key.id };
                    self.conns.send(consumer.key.conn, &notice.into());
                }
            }
        }
    }

    fn pump_connection(&mut self, conn: ConnId) {
        let Some(connection) = self.conns.get(conn) else { return };
        let subscriptions: BTreeSet<_> = connection.consumers.values().filter_map(|slot| slot.subscription()).collect();
        for (topic, subscription) in subscriptions {
            self.pump(&topic, Some(&subscription));
        }
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("url", &self.url)
            .field("topics", &self.topics.len())
            .field("violations", &self.judge.violations().len())
            .finish_non_exhaustive()
    }
}

/// The protocol version that brought a command.
fn version_of(command: &Command) -> i32 {
    match command {
        Command::RedeliverUnacknowledgedMessages(_) => 2,
        Command::Lookup(_) | Command::PartitionedMetadata(_) => 7,
        Command::ConsumerStats(_) => 8,
        Command::GetLastMessageId(_) | Command::GetTopicsOfNamespace(_) => 12,
        Command::Ack(ack) if ack.request_id.is_some() => 17,
        Command::Ack(ack) if ack.message_id.len() > 1 => 12,
        Command::AuthResponse(_) => 14,
        Command::Subscribe(subscribe) if subscribe.sub_type() == pb::command_subscribe::SubType::KeyShared => 14,
        Command::GetOrCreateSchema(_) => 15,
        Command::TcClientConnectRequest(_) => 19,
        _ => 0,
    }
}
