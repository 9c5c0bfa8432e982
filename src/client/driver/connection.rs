//! The task of one connection: bytes between a socket and a [`Session`], one hand-written `poll`.
//!
//! Each turn reads, lets the session work, writes; turns go on while there is progress. Reading never waits for
//! writing: a peer that stops reading still has its frames taken, and one that stops for a keep-alive interval while
//! bytes wait for it loses the connection.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::AsyncWrite;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio_util::io::{poll_read_buf, poll_write_buf};

use super::read_buffer::ReadBuffer;
use crate::client::clock;
use crate::client::dial::Socket;
use crate::client::runtime::{AsyncTimer, Runtime};
use crate::error::Error;
use crate::machine::connection::ConnectionConfig;
use crate::machine::control::{AuthData, CloseReason, ConnectionId, Input, SessionCommand};
use crate::machine::session::Session;
use crate::machine::{Deadline, Deferred, Now, ReadyList};
use crate::wire::frame::missing;
use crate::wire::tx::TxBuf;

/// The most bytes that one turn reads before the session gets to write.
const READ_TURN_BYTES: usize = 256 * 1024;

/// Turns in one poll; then the task yields.
const TURNS_MAX: u32 = 16;

/// One connection's task. It ends with its connection, and tells the supervisor so.
pub(crate) struct ConnectionDriver<R: Runtime> {
    id: ConnectionId,
    runtime: R,
    /// Taken when the connection ends.
    session: Option<Session>,
    socket: Box<dyn Socket>,
    rx: ReadBuffer,
    /// Something was read since a deadline was last met.
    has_read: bool,
    tx: TxBuf,
    /// The socket took bytes that a layer in it (TLS) may hold until it is flushed.
    needs_flush: bool,
    /// The last turn left bytes that the socket did not take.
    is_blocked: bool,
    /// When the peer last took bytes, or when they began to wait.
    last_write: Instant,
    write_stall_max: Duration,
    /// Closed when the supervisor gives the connection up.
    commands: UnboundedReceiver<SessionCommand>,
    /// The supervisor's inbox. Bounded by construction: one event for each request, attempt or end.
    events: UnboundedSender<Input>,
    timer: R::Timer,
    /// The instant that the timer is set to.
    timer_at: Option<Instant>,
    /// Empty between turns; kept for its memory.
    deferred: Deferred,
}

impl<R: Runtime> ConnectionDriver<R> {
    /// A driver of a connection that has just been made. Endpoints that lose it go back to the list `supervisor`.
    pub(super) fn new(
        id: ConnectionId,
        runtime: R,
        socket: Box<dyn Socket>,
        session: (ConnectionConfig, AuthData),
        supervisor: Arc<ReadyList>,
        commands: UnboundedReceiver<SessionCommand>,
        events: UnboundedSender<Input>,
    ) -> Self {
        let now = clock::now();
        let (config, credentials) = session;
        let write_stall_max = config.keep_alive_interval;
        let timer = runtime.new_timer();
        Self {
            id,
            runtime,
            session: Some(Session::new(config, credentials, supervisor, now)),
            socket,
            rx: ReadBuffer::default(),
            has_read: false,
            tx: TxBuf::new(),
            needs_flush: false,
            is_blocked: false,
            last_write: now.at,
            write_stall_max,
            commands,
            events,
            timer,
            timer_at: None,
            deferred: Deferred::new(),
        }
    }

    /// One turn; whether there was progress.
    fn turn(&mut self, now: Now, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        let Some(session) = &mut self.session else { return Ok(false) };
        let mut deferred = std::mem::take(&mut self.deferred);
        let mut progress = false;
        loop {
            match self.commands.poll_recv(cx) {
                Poll::Ready(Some(command)) => session.handle_command(command, now, &mut deferred),
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
                self.rx.forget_spent();
            }
            progress = true;
        }
        // Before frames are summed and written, so that the tasks this wakes run meanwhile on other threads.
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

    /// Writes and flushes what the socket takes; whether it took anything.
    fn write(&mut self, now: Now, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        let mut progress = false;
        // The stall is timed from the first turn with something to write, not from the end of the idle time before it.
        if !std::mem::replace(&mut self.is_blocked, !self.tx.is_empty() || self.needs_flush) {
            self.last_write = now.at;
        }
        while !self.tx.is_empty() {
            match poll_write_buf(Pin::new(&mut self.socket), cx, &mut self.tx) {
                Poll::Ready(Ok(0)) => return Err(closed("the connection takes no more bytes")),
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
            // A supervisor that is gone has ended the client: the channel of commands is closed, too.
            let _ = self.events.send(Input::Session(self.id, event));
        }
    }

    /// Sets the timer; `true` if something is due already.
    fn arm(&mut self, now: Now, cx: &mut Context<'_>) -> bool {
        let session = self.session.as_ref().and_then(Session::poll_deadline);
        let stall = self.is_blocked.then(|| Deadline::new(self.last_write + self.write_stall_max, "write stall"));
        let Some(deadline) = Deadline::earlier(session, stall) else { return false };
        // A deadline that moved later leaves a timer alone that has not fired: it fires early, once, and is set anew.
        if self.timer_at.is_none_or(|at| at <= now.at || deadline.at < at) {
            self.timer.reset(deadline.at);
            self.timer_at = Some(deadline.at);
        }
        self.timer.poll(cx).is_ready()
    }

    fn end(&mut self, reason: CloseReason) {
        let Some(session) = self.session.take() else { return };
        let mut deferred = Deferred::new();
        for event in session.end(reason, clock::now(), &mut deferred) {
            let _ = self.events.send(Input::Session(self.id, event));
        }
    }
}

/// Reads what is there, up to a turn's worth, and passes it to the session.
fn read(
    session: &mut Session,
    socket: &mut Box<dyn Socket>,
    buffer: &mut ReadBuffer,
    cx: &mut Context<'_>,
    deferred: &mut Deferred,
) -> Result<bool, CloseReason> {
    let mut bytes = 0;
    while bytes < READ_TURN_BYTES {
        buffer.make_room(missing(&buffer.rx, session.limits()));
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
    CloseReason::Io(Error::network("the connection was lost").with_source(error))
}

impl<R: Runtime> Future for ConnectionDriver<R> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if let Some(session) = &mut this.session {
            this.runtime.inspect_session(session, &this.tx);
        }
        for _ in 0..TURNS_MAX {
            let now = clock::now();
            match this.turn(now, cx) {
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
    /// The runtime goes away, or the supervisor gave the connection up: endpoints are detached all the same.
    fn drop(&mut self) {
        self.end(CloseReason::Local("the connection was given up"));
    }
}
