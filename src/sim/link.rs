//! One connection's driver, as the tokio one works, over a simulated connection.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::mpsc::UnboundedSender;

use super::invariants::Violations;
use super::net::{Direction, Net, NetId};
use crate::machine::control::{CloseReason, ConnectionId, Input, SessionCommand};
use crate::machine::session::Session;
use crate::machine::{Deadline, Deferred, Now};
use crate::wire::frame::frames;
use crate::wire::tx::TxBuf;

/// A session lets no guest write above this; one frame of the largest message passes.
const TX_BYTES_MAX: usize = 256 * 1024 + 6 * 1024 * 1024;

/// A driver.
pub(super) struct Link {
    pub(super) id: ConnectionId,
    pub(super) net: NetId,
    pub(super) session: Option<Session>,
    pub(super) waker: Waker,
    pub(super) commands: VecDeque<SessionCommand>,
    pub(super) is_hung_up: bool,
    pub(super) news: UnboundedSender<Input>,
    rx: BytesMut,
    tx: TxBuf,
    took_at: Instant,
    write_stall_max: Duration,
}

impl Link {
    pub(super) fn new(
        id: ConnectionId,
        net: NetId,
        session: Session,
        waker: Waker,
        news: UnboundedSender<Input>,
        write_stall_max: Duration,
        now: Now,
    ) -> Self {
        Self {
            id,
            net,
            session: Some(session),
            waker,
            commands: VecDeque::new(),
            is_hung_up: false,
            news,
            rx: BytesMut::new(),
            tx: TxBuf::new(),
            took_at: now.at,
            write_stall_max,
        }
    }

    /// Works until nothing moves; `false` when the connection is over.
    pub(super) fn run(&mut self, net: &mut Net, now: Now) -> bool {
        loop {
            match self.turn(net, now) {
                Ok(true) => {}
                Ok(false) => return true,
                Err(reason) => {
                    self.end(reason, now);
                    net.finish(self.net, Direction::Up, now.at);
                    return false;
                }
            }
        }
    }

    fn turn(&mut self, net: &mut Net, now: Now) -> Result<bool, CloseReason> {
        let Some(session) = &mut self.session else { return Ok(false) };
        let mut deferred = Deferred::new();
        let mut moved = false;
        while let Some(command) = self.commands.pop_front() {
            session.handle_command(command, now, &mut deferred);
            moved = true;
        }
        if self.is_hung_up {
            return Err(CloseReason::Local("the client is closed"));
        }
        if let Some(wire) = net.get_mut(self.net) {
            if !wire.client_rx.is_empty() {
                self.rx.unsplit(wire.client_rx.split());
                session.handle_read(&mut self.rx, now, &mut deferred)?;
                moved = true;
            } else if wire.client_eof {
                return Err(CloseReason::Io(crate::error::Error::network("the broker closed the connection")));
            }
        }
        if session.poll_deadline().is_some_and(|deadline| deadline.is_due(now)) {
            session.handle_deadline(now, &mut deferred)?;
            moved = true;
        }
        let waiting = self.tx.len();
        session.poll_transmit(&mut self.tx, now, Some(&self.waker), &mut deferred)?;
        moved |= self.tx.len() != waiting;
        moved |= self.write(net, now)?;
        moved |= self.session.as_ref().is_some_and(|session| session.wants_transmit(&self.tx));
        deferred.fire();
        self.pass_on_notices();
        Ok(moved)
    }

    fn write(&mut self, net: &mut Net, now: Now) -> Result<bool, CloseReason> {
        let room = net.room(self.net, Direction::Up).min(self.tx.len());
        if room > 0 {
            let mut bytes: Bytes = self.tx.copy_to_bytes(room);
            net.write(self.net, Direction::Up, &mut bytes, now.at);
        }
        if room > 0 || self.tx.is_empty() {
            self.took_at = now.at;
        } else if now.at.saturating_duration_since(self.took_at) >= self.write_stall_max {
            return Err(CloseReason::Silent { after: self.write_stall_max });
        }
        Ok(room > 0)
    }

    fn pass_on_notices(&mut self) {
        let Some(session) = &mut self.session else { return };
        while let Some(notice) = session.poll_event() {
            let _ = self.news.send(Input::Session(self.id, notice));
        }
    }

    pub(super) fn poll_deadline(&self) -> Option<Deadline> {
        let session = self.session.as_ref().and_then(Session::poll_deadline);
        let stall = (!self.tx.is_empty()).then(|| Deadline::new(self.took_at + self.write_stall_max, "write stall"));
        Deadline::earlier(session, stall)
    }

    pub(super) fn end(&mut self, reason: CloseReason, now: Now) {
        let Some(session) = self.session.take() else { return };
        let mut deferred = Deferred::new();
        for notice in session.end(reason, now, &mut deferred) {
            let _ = self.news.send(Input::Session(self.id, notice));
        }
    }

    /// Whether every endpoint with something to do is in this session's list, and every deadline is known: asking
    /// them all, nothing comes.
    pub(super) fn check(&mut self, now: Now, violations: &mut Violations) {
        if self.tx.len() > TX_BYTES_MAX {
            let bytes = self.tx.len();
            violations.note("queue bounds", || format!("{bytes} bytes wait to be written on one connection"));
        }
        let Some(session) = &mut self.session else { return };
        // A connection with a full socket gives no turns.
        if !self.tx.is_empty() {
            return;
        }
        let before = session.poll_deadline();
        let mut deferred = Deferred::new();
        let mut tx = TxBuf::new();
        session.schedule_all();
        let result = session.poll_transmit(&mut tx, now, Some(&self.waker), &mut deferred);
        let after = session.poll_deadline();
        let link = self.id;
        if !tx.is_empty() || result.is_err() {
            let frames: Vec<_> = frames(tx.take_all()).collect();
            violations.note("no lost wake-up", || format!("{link:?}: a guest had no turn to send {frames:?}"));
        }
        let earlier = match (before, after) {
            (Some(before), Some(after)) => after.at < before.at,
            (None, Some(_)) => true,
            _ => false,
        };
        if earlier {
            violations.note("no lost deadline", || format!("{link:?}: {after:?} was not known, only {before:?}"));
        }
    }
}
