//! PING and PONG, and the end of a peer that has fallen silent.

use std::time::Duration;

use crate::machine::control::CloseReason;
use crate::machine::{Deadline, Now};
use crate::wire::hot::{put_ping, put_pong};
use crate::wire::tx::TxBuf;

/// Pongs owed at most; a peer that pings faster than it reads gets one answer for several.
pub(super) const PONGS_OWED_MAX: u32 = 16;

/// No pong is added while this much waits to be written: a peer that pings and does not read gets its answer later.
const PONG_TX_BYTES_MAX: usize = 256 * 1024;

/// The keep-alive of one connection. Once in each interval it looks whether anything but a PING was heard since the last
/// time, and pings the peer. The handshake has a time of its own, at most one interval.
#[derive(Debug)]
pub(super) struct KeepAlive {
    interval: Duration,
    handshake_timeout: Duration,
    /// The end of the present interval; `None` for one that is beyond what the clock can say.
    deadline: Option<Deadline>,
    /// Something other than a PING has come in the present interval.
    has_heard: bool,
    /// The peer was pinged before the present interval, so that it had one to answer.
    has_pinged: bool,
    /// A PING is to be written.
    is_ping_due: bool,
    /// How many PONGs are to be written.
    pongs_owed: u32,
}

impl KeepAlive {
    pub(super) fn new(interval: Duration, handshake_timeout: Duration, now: Now) -> Self {
        let handshake_timeout = handshake_timeout.min(interval);
        Self {
            interval,
            handshake_timeout,
            deadline: Deadline::after(now, handshake_timeout, "handshake"),
            has_heard: false,
            has_pinged: false,
            is_ping_due: false,
            pongs_owed: 0,
        }
    }

    /// A frame other than PING has come. A PING only says that the peer's timer runs; everything else is proof that it
    /// serves this client.
    #[inline]
    pub(super) fn on_frame(&mut self) {
        self.has_heard = true;
    }

    /// A PING has come.
    pub(super) fn on_ping(&mut self) {
        self.pongs_owed = (self.pongs_owed + 1).min(PONGS_OWED_MAX);
    }

    /// Writes what is due. Pongs are counted, not queued.
    pub(super) fn poll_transmit(&mut self, tx: &mut TxBuf) {
        if tx.len() < PONG_TX_BYTES_MAX {
            for _ in 0..std::mem::take(&mut self.pongs_owed) {
                put_pong(tx.flat());
            }
        }
        if std::mem::take(&mut self.is_ping_due) {
            put_ping(tx.flat());
        }
    }

    /// When the interval ends.
    pub(super) fn poll_deadline(&self) -> Option<Deadline> {
        self.deadline
    }

    /// At the end of an interval pings the peer; `is_up` says whether the handshake is done.
    ///
    /// # Errors
    /// [`CloseReason::Silent`]: the handshake is not done in time, or nothing but PINGs came in the interval after a PING.
    pub(super) fn handle_deadline(&mut self, is_up: bool, now: Now) -> Result<(), CloseReason> {
        if !self.deadline.is_some_and(|deadline| deadline.is_due(now)) {
            return Ok(());
        }
        let has_heard = std::mem::take(&mut self.has_heard);
        if !is_up {
            return Err(CloseReason::Silent { after: self.handshake_timeout });
        }
        if self.has_pinged && !has_heard {
            return Err(CloseReason::Silent { after: self.interval });
        }
        self.is_ping_due = true;
        self.has_pinged = true;
        self.deadline = Deadline::after(now, self.interval, "keep-alive");
        Ok(())
    }
}
