//! The task of one connection: bytes between a socket and a [`Session`], one hand-written `poll`.
//!
//! Each step reads, runs the session and writes; steps are repeated while there is progress. Reading never waits for
//! writing: frames of a peer that stops reading are still received. If it accepts no bytes for a keep-alive interval
//! while some wait, the connection ends.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::AsyncWrite;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio_util::io::{poll_read_buf, poll_write_buf};

use super::SupervisorHandle;
use super::read_buffer::ReadBuffer;
use crate::client::clock;
use crate::client::dial::{self, Socket};
use crate::client::runtime::{AsyncTimer, Runtime};
use crate::error::Error;
use crate::machine::connection::ConnectionConfig;
use crate::machine::control::{AuthData, CloseReason, ConnectionId, Input, SessionCommand};
use crate::machine::session::Session;
use crate::machine::{Deadline, Deferred, Now};
use crate::wire::frame::missing;
use crate::wire::tx::TxBuf;

/// The most bytes that one step reads before the session can write.
const READ_STEP_BYTES: usize = 256 * 1024;

/// The most steps in one poll; then the task yields.
const STEPS_MAX: u32 = 16;

/// The task of one connection. It ends with its connection and reports that to the supervisor.
pub(crate) struct ConnectionDriver<R: Runtime> {
    id: ConnectionId,
    runtime: R,
    /// Taken when the connection ends.
    session: Option<Session>,
    socket: Box<dyn Socket>,
    rx: ReadBuffer,
    /// Something was read since the last deadline.
    has_read: bool,
    tx: TxBuf,
    /// The socket accepted bytes that a layer in it (TLS) may hold until it is flushed.
    needs_flush: bool,
    /// The last step left bytes that the socket did not accept.
    is_blocked: bool,
    /// When the peer last accepted bytes, or when they began to wait.
    last_write: Instant,
    write_stall_max: Duration,
    /// Closed when the supervisor gives the connection up.
    commands: UnboundedReceiver<SessionCommand>,
    /// To the supervisor. Bounded by construction: one input for each request, attempt or end.
    inputs: UnboundedSender<Input>,
    timer: R::Timer,
    /// The instant that the timer is set to.
    timer_at: Option<Instant>,
    /// Empty between steps; kept to reuse its memory.
    deferred: Deferred,
}

impl<R: Runtime> ConnectionDriver<R> {
    /// The driver of a new connection. When it ends, its endpoints go back to the list `supervisor`.
    pub(super) fn new(
        id: ConnectionId,
        runtime: R,
        socket: Box<dyn Socket>,
        config: ConnectionConfig,
        credentials: AuthData,
        supervisor: SupervisorHandle,
        commands: UnboundedReceiver<SessionCommand>,
    ) -> Self {
        let now = clock::now();
        let write_stall_max = config.keep_alive_interval;
        let timer = runtime.new_timer();
        Self {
            id,
            runtime,
            session: Some(Session::new(config, credentials, supervisor.ready, now)),
            socket,
            rx: ReadBuffer::default(),
            has_read: false,
            tx: TxBuf::new(),
            needs_flush: false,
            is_blocked: false,
            last_write: now.at,
            write_stall_max,
            commands,
            inputs: supervisor.inputs,
            timer,
            timer_at: None,
            deferred: Deferred::new(),
        }
    }

    /// One step; whether there was progress.
    fn step(&mut self, now: Now, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        let Some(session) = &mut self.session else { return Ok(false) };
        let mut deferred = std::mem::take(&mut self.deferred);
        let mut progress = false;
        loop {
            match self.commands.poll_recv(cx) {
                Poll::Ready(Some(command)) => session.handle_command(command, now, &mut deferred)?,
                Poll::Ready(None) => return Err(CloseReason::Local("the client is closed")),
                Poll::Pending => break,
            }
            progress = true;
        }
        let has_read = read(session, &mut self.socket, &mut self.rx, cx, &mut deferred)?;
        self.has_read |= has_read;
        progress |= has_read;
        if session.poll_deadline().is_some_and(|deadline| deadline.is_due(now)) {
            session.handle_deadline(now, &mut deferred)?;
            if !std::mem::take(&mut self.has_read) {
                self.rx.free_spent();
            }
            progress = true;
        }
        // Before frames are checksummed and written, so that the tasks woken here run meanwhile on other threads.
        deferred.fire();
        let unwritten = self.tx.len();
        session.poll_transmit(&mut self.tx, now, Some(cx.waker()), &mut deferred)?;
        deferred.fire();
        self.deferred = deferred;
        progress |= self.tx.len() != unwritten;
        progress |= self.write(now, cx)?;
        progress |= self.session.as_ref().is_some_and(|session| session.wants_transmit(&self.tx));
        self.forward_events();
        Ok(progress)
    }

    /// Writes and flushes what the socket accepts; whether it accepted anything.
    fn write(&mut self, now: Now, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        let mut progress = false;
        // A stall is timed from the first step with something to write, not from the last write before it.
        if !std::mem::replace(&mut self.is_blocked, !self.tx.is_empty() || self.needs_flush) {
            self.last_write = now.at;
        }
        while !self.tx.is_empty() {
            match poll_write_buf(Pin::new(&mut self.socket), cx, &mut self.tx) {
                Poll::Ready(Ok(0)) => return Err(closed("the connection accepts no more bytes")),
                Poll::Ready(Ok(_)) => {
                    self.needs_flush = true;
                    progress = true;
                }
                Poll::Ready(Err(error)) => return Err(lost(error)),
                Poll::Pending => break,
            }
        }
        if self.needs_flush {
            match Pin::new(&mut self.socket).poll_flush(cx) {
                Poll::Ready(Ok(())) => {
                    self.needs_flush = false;
                    progress = true;
                }
                Poll::Ready(Err(error)) => return Err(lost(error)),
                Poll::Pending => {}
            }
        }
        self.is_blocked = !self.tx.is_empty() || self.needs_flush;
        if progress {
            self.last_write = now.at;
        } else if self.is_blocked && now.at.saturating_duration_since(self.last_write) >= self.write_stall_max {
            return Err(CloseReason::Silent { after: self.write_stall_max });
        }
        Ok(progress)
    }

    fn forward_events(&mut self) {
        let Some(session) = &mut self.session else { return };
        while let Some(event) = session.poll_event() {
            // If the supervisor has ended, so has the client: the channel of commands is closed, too.
            let _ = self.inputs.send(Input::Session(self.id, event));
        }
    }

    /// Sets the timer; `true` if a deadline has passed already.
    fn arm(&mut self, now: Now, cx: &mut Context<'_>) -> bool {
        let session = self.session.as_ref().and_then(Session::poll_deadline);
        let stalled_at = self.last_write.checked_add(self.write_stall_max).filter(|_| self.is_blocked);
        let stall = stalled_at.map(|at| Deadline::new(at, "write stall"));
        let Some(deadline) = Deadline::earlier(session, stall) else { return false };
        // If the deadline moved later, the timer is left as it is: it fires once too early and is then set again.
        if self.timer_at.is_none_or(|at| at <= now.at || deadline.at < at) {
            self.timer.reset(deadline.at);
            self.timer_at = Some(deadline.at);
        }
        let is_due = self.timer.poll(cx).is_ready();
        if let (false, Some(session), Some(at)) = (is_due, &self.session, self.timer_at) {
            session.sleeps_until(at);
        }
        is_due
    }

    fn end(&mut self, reason: CloseReason) {
        let Some(session) = self.session.take() else { return };
        let mut deferred = Deferred::new();
        for event in session.end(reason, clock::now(), &mut deferred) {
            let _ = self.inputs.send(Input::Session(self.id, event));
        }
    }
}

/// Reads the available bytes, up to the limit of a step, and passes them to the session.
fn read(
    session: &mut Session,
    socket: &mut Box<dyn Socket>,
    buffer: &mut ReadBuffer,
    cx: &mut Context<'_>,
    deferred: &mut Deferred,
) -> Result<bool, CloseReason> {
    let mut bytes = 0;
    while bytes < READ_STEP_BYTES {
        buffer.reserve(missing(&buffer.rx, session.limits()));
        match poll_read_buf(Pin::new(&mut *socket), cx, &mut buffer.rx) {
            Poll::Ready(Ok(0)) => return Err(closed("the broker closed the connection")),
            Poll::Ready(Ok(n)) => bytes += n,
            Poll::Ready(Err(error)) => return Err(lost(error)),
            Poll::Pending => break,
        }
        session.handle_read(&mut buffer.rx, clock::now(), deferred)?;
    }
    Ok(bytes > 0)
}

fn closed(what: &str) -> CloseReason {
    CloseReason::Io(Error::network(what))
}

fn lost(error: io::Error) -> CloseReason {
    CloseReason::Io(dial::lost(error))
}

impl<R: Runtime> Future for ConnectionDriver<R> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if let Some(session) = &mut this.session {
            this.runtime.inspect_session(session, &this.tx);
        }
        for _ in 0..STEPS_MAX {
            let now = clock::now();
            match this.step(now, cx) {
                Ok(true) => {}
                Ok(false) => {
                    if !this.arm(now, cx) {
                        return Poll::Pending;
                    }
                }
                Err(reason) => {
                    this.end(reason);
                    return Poll::Ready(());
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<R: Runtime> Drop for ConnectionDriver<R> {
    /// The runtime shuts down, or the supervisor gave the connection up: the endpoints are detached.
    fn drop(&mut self) {
        let panicked = std::thread::panicking();
        self.end(CloseReason::Local(if panicked {
            "a socket of the dialer panicked"
        } else {
            "the connection was given up"
        }));
    }
}
