//! One connection: the handshake, versions, keep-alive, and which command is about what.
//!
//! What it sees of a frame has left its sender and has not reached its receiver. So a SEND that is seen before its PRODUCER_SUCCESS
//! was sent too early, and a FLOW counts before the broker has it: nothing that is allowed is ever judged wrong.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;

use super::consumers::Consumer;
use super::observation::{FrameObservation, ObservedEvent};
use super::producers::Producer;
use super::requests::Requests;
use super::shared::Shared;
use super::{InspectorConfig, Sink, summary};
use crate::broker::version_of;
use crate::capture::{Direction, Traffic};
use crate::rules::{Rule, Side};
use crate::tap::cutter::{Cutter, Piece};
use crate::wire::command::{Command, Sender};
use crate::wire::error::DecodeError;
use crate::wire::frame::{Frame, frames};

/// ```text
/// Start --CONNECT--> Connecting --CONNECTED--> Connected
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handshake {
    Start,
    Connecting,
    Connected,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Connection {
    /// Nothing of it is missing, so that its state is known.
    pub(super) is_whole: bool,
    /// By direction.
    cutters: [Cutter; 2],
    is_closed: [bool; 2],
    /// When a side sent a PING, while nothing came from the other since.
    pinged: [Option<SystemTime>; 2],
    handshake: Handshake,
    version: i32,
    pub(super) requests: Requests,
    pub(super) producers: BTreeMap<u64, Producer>,
    pub(super) consumers: BTreeMap<u64, Consumer>,
}

/// What handling a frame needs besides the connection.
pub(super) struct Context<'a, 'b> {
    pub(super) config: &'a InspectorConfig,
    pub(super) shared: &'a mut Shared,
    pub(super) sink: &'a mut Sink<'b>,
}

impl Context<'_, '_> {
    pub(super) fn break_rule(&mut self, rule: Rule, by: Side, detail: impl FnOnce() -> String) {
        self.sink.break_rule(rule, by, detail());
    }
}

fn index(direction: Direction) -> usize {
    match direction {
        Direction::ToBroker => 0,
        Direction::ToClient => 1,
    }
}

fn sender(direction: Direction) -> Side {
    match direction {
        Direction::ToBroker => Side::Client,
        Direction::ToClient => Side::Broker,
    }
}

/// Bytes.
impl Connection {
    pub(super) fn new(is_partial: bool, shared: &Shared) -> Self {
        let cutter = || Cutter::new(is_partial, shared.unfinished.share());
        Self {
            is_whole: !is_partial,
            cutters: [cutter(), cutter()],
            is_closed: [false; 2],
            pinged: [None; 2],
            handshake: Handshake::Start,
            version: 0,
            requests: Requests::new(shared.kept.share()),
            producers: BTreeMap::new(),
            consumers: BTreeMap::new(),
        }
    }

    pub(super) fn push(
        &mut self,
        config: &InspectorConfig,
        shared: &mut Shared,
        direction: Direction,
        bytes: &[u8],
        sink: &mut Sink<'_>,
    ) {
        self.cutters[index(direction)].push(bytes);
        let mut cx = Context { config, shared, sink };
        while let Some(piece) = self.cutters[index(direction)].next() {
            match piece {
                Piece::Run(run) => self.read_run(direction, &run, &mut cx),
                Piece::Skipped(count) => cx.sink.put(ObservedEvent::Skipped { direction, count }),
                Piece::Unreadable(error) => self.on_unreadable(direction, &error, &mut cx),
                Piece::Other(traffic) => self.on_other_protocol(direction, traffic, &mut cx),
            }
        }
        if !self.cutters[index(direction)].settle() {
            self.is_whole = false;
            cx.shared.is_whole = false;
        }
    }

    /// What this side sends from now on is not known, so neither is what the other side may send.
    fn on_unreadable(&mut self, direction: Direction, error: &DecodeError, cx: &mut Context<'_, '_>) {
        cx.break_rule(Rule::UnreadableFrame, sender(direction), || error.to_string());
        cx.sink.flush();
        self.is_whole = false;
        cx.shared.is_whole = false;
    }

    /// Nobody breaks a rule of Pulsar's protocol in another one. What is inside TLS may be about the topics of other connections;
    /// HTTP has no deliveries and no sequence ids.
    fn on_other_protocol(&mut self, direction: Direction, protocol: Traffic, cx: &mut Context<'_, '_>) {
        self.cutters.iter_mut().for_each(Cutter::give_up);
        self.is_whole = false;
        cx.shared.is_whole &= protocol != Traffic::Tls;
        cx.sink.put(ObservedEvent::OtherProtocol { direction, protocol });
    }

    fn read_run(&mut self, direction: Direction, run: &Bytes, cx: &mut Context<'_, '_>) {
        let mut at = 0;
        for frame in frames(run.clone()) {
            let size =
                run.get(at..).and_then(|rest| rest.first_chunk::<4>()).map_or(0, |size| u32::from_be_bytes(*size));
            let end = (at + 4).saturating_add(size as usize).min(run.len());
            match frame {
                Ok(frame) => {
                    let mut seen = FrameObservation::new(direction, frame.name(), end - at);
                    seen.bytes = cx.config.keep_frames.then(|| run.slice(at..end));
                    self.on_frame(&mut seen, frame, cx);
                    cx.sink.tell(seen);
                }
                Err(error) => {
                    if self.cutters[index(direction)].reject() {
                        self.on_unreadable(direction, &error, cx);
                    }
                }
            }
            at = end;
        }
    }

    pub(super) fn lose(&mut self, direction: Direction, count: u64) {
        self.is_whole = false;
        self.cutters[index(direction)].lose(count);
    }

    /// Whether it is over in both directions.
    pub(super) fn close(
        &mut self,
        config: &InspectorConfig,
        direction: Direction,
        is_reset: bool,
        sink: &mut Sink<'_>,
    ) -> bool {
        let is_late = |pinged: SystemTime| sink.at.duration_since(pinged).is_ok_and(|since| since >= config.keep_alive);
        if self.is_whole && self.pinged[index(direction)].is_some_and(is_late) {
            let silent = sender(direction.reversed());
            sink.break_rule(Rule::PongMissing, silent, "nothing came since the last PING".to_owned());
        }
        self.is_closed[index(direction)] = true;
        is_reset || self.is_closed == [true; 2]
    }
}

/// Frames.
impl Connection {
    fn on_frame(&mut self, seen: &mut FrameObservation, frame: Frame, cx: &mut Context<'_, '_>) {
        self.pinged[index(seen.direction.reversed())] = None;
        let is_from_client = seen.direction == Direction::ToBroker;
        match frame {
            Frame::Send { head, entry } if is_from_client => {
                self.check_connected(seen, cx);
                self.on_send(seen, &head, &entry, cx);
            }
            Frame::Receipt(receipt) if !is_from_client => {
                self.check_connected(seen, cx);
                self.on_receipt(seen, &receipt, cx);
            }
            Frame::Message { head, entry } if !is_from_client => {
                self.check_connected(seen, cx);
                self.on_message(seen, &head, &entry, cx);
            }
            Frame::Other(command) => self.on_command(seen, &command, cx),
            Frame::Unknown { command_type } if is_from_client => {
                let detail = || format!("unknown command type {command_type}");
                self.condemn(Rule::UnreadableFrame, cx, detail);
            }
            // A client skips it.
            Frame::Unknown { command_type } => seen.detail = format!("type {command_type}"),
            Frame::Send { .. } | Frame::Receipt(_) | Frame::Message { .. } => self.on_wrong_side(seen, cx),
        }
    }

    fn on_wrong_side(&mut self, seen: &FrameObservation, cx: &mut Context<'_, '_>) {
        let (rule, by) = match seen.direction {
            Direction::ToBroker => (Rule::ServerOnlyCommand, Side::Client),
            Direction::ToClient => (Rule::ClientOnlyCommand, Side::Broker),
        };
        cx.break_rule(rule, by, || seen.command.to_owned());
        self.is_whole = false;
    }

    fn on_command(&mut self, seen: &mut FrameObservation, command: &Command, cx: &mut Context<'_, '_>) {
        summary::fill(seen, command);
        let is_from_client = seen.direction == Direction::ToBroker;
        match command {
            Command::Ping(_) => return self.pinged[index(seen.direction)] = Some(cx.sink.at),
            Command::Pong(_) => return,
            _ => {}
        }
        let wrong = if is_from_client { Sender::Broker } else { Sender::Client };
        if command.sender() == wrong {
            if is_from_client {
                self.check_connected(seen, cx);
            }
            // Before the handshake that is the rule.
            if cx.sink.broken.is_empty() {
                self.on_wrong_side(seen, cx);
            }
            return;
        }
        if is_from_client {
            self.check_client_handshake(seen, command, cx);
            self.check_client_version(command, cx);
            self.on_client_command(seen, command, cx);
        } else {
            self.check_broker_handshake(seen, command, cx);
            self.check_broker_version(seen, cx);
            self.on_broker_command(seen, command, cx);
        }
    }

    fn check_connected(&mut self, seen: &FrameObservation, cx: &mut Context<'_, '_>) {
        if self.is_whole && self.handshake != Handshake::Connected {
            let by = sender(seen.direction);
            cx.break_rule(Rule::Handshake, by, || format!("{} before CONNECTED", seen.command));
            self.is_whole = false;
        }
    }

    fn check_client_handshake(&mut self, seen: &FrameObservation, command: &Command, cx: &mut Context<'_, '_>) {
        match command {
            Command::Connect(connect) => {
                if self.is_whole && self.handshake != Handshake::Start {
                    self.condemn(Rule::Handshake, cx, || "CONNECT twice".to_owned());
                }
                self.handshake = Handshake::Connecting;
                self.version = connect.protocol_version();
            }
            Command::AuthResponse(_) if self.handshake == Handshake::Connecting => {}
            _ => self.check_connected(seen, cx),
        }
    }

    fn check_broker_handshake(&mut self, seen: &FrameObservation, command: &Command, cx: &mut Context<'_, '_>) {
        match command {
            Command::Connected(connected) => {
                if self.is_whole && self.handshake != Handshake::Connecting {
                    let what =
                        if self.handshake == Handshake::Start { "CONNECTED before CONNECT" } else { "CONNECTED twice" };
                    cx.break_rule(Rule::Handshake, Side::Broker, || what.to_owned());
                }
                self.handshake = Handshake::Connected;
                self.version = self.version.min(connected.protocol_version());
                if let Some(size) = connected.max_message_size.and_then(|size| u32::try_from(size).ok()) {
                    self.cutters.iter_mut().for_each(|cutter| cutter.set_message_size(size));
                }
            }
            Command::AuthChallenge(_) | Command::Error(_) if self.handshake == Handshake::Connecting => {}
            _ => self.check_connected(seen, cx),
        }
    }

    fn check_client_version(&mut self, command: &Command, cx: &mut Context<'_, '_>) {
        let (needed, version) = (version_of(command), self.version);
        if self.is_whole && version < needed {
            let detail = || format!("{} needs version {needed}, not {version}", command.name());
            cx.break_rule(Rule::AboveVersion, Side::Client, detail);
        }
    }

    /// Commands that a broker sends by itself, and that older clients do not know.
    fn check_broker_version(&mut self, seen: &FrameObservation, cx: &mut Context<'_, '_>) {
        let needed = match seen.command {
            "CLOSE_PRODUCER" | "CLOSE_CONSUMER" => 5,
            "REACHED_END_OF_TOPIC" => 9,
            "ACTIVE_CONSUMER_CHANGE" => 12,
            "AUTH_CHALLENGE" => 14,
            _ => 0,
        };
        let version = self.version;
        if self.is_whole && version < needed {
            let detail = || format!("{} needs version {needed}, not {version}", seen.command);
            cx.break_rule(Rule::AboveVersion, Side::Broker, detail);
        }
    }
}
