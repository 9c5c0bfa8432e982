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
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, Sleep};
use tokio_util::io::{poll_read_buf, poll_write_buf};

use super::clock;
use super::dial::Socket;
use super::read_buffer::ReadBuffer;
use crate::error::Error;
use crate::machine::connection::ConnectionConfig;
use crate::machine::control::{AuthData, CloseReason, ConnectionId, Input, SessionCommand, SessionEvent};
use crate::machine::session::Session;
use crate::machine::{Deadline, Deferred, ReadyList};
use crate::wire::frame::missing;
use crate::wire::tx::TxBuf;

/// What one turn reads at most before the session gets to write.
const READ_TURN_BYTES: usize = 256 * 1024;

/// Turns in one poll; then the task lets others run.
const TURNS_MAX: u32 = 16;

/// One connection's task. It ends with its connection, and says so to the supervisor.
pub(crate) struct Driver {
    /// Taken when the connection ends.
    session: Option<Session>,
    socket: Box<dyn Socket>,
    rx: ReadBuffer,
    /// Something was read since a deadline was last met.
    reads: bool,
    tx: TxBuf,
    /// Bytes may lie in a layer below (TLS) until it is flushed.
    unflushed: bool,
    /// Bytes wait for the peer.
    pending: bool,
    /// When the peer last took bytes, or when they began to wait.
    took_at: Instant,
    write_stall_max: Duration,
    commands: UnboundedReceiver<SessionCommand>,
    /// Bounded by construction: one notice for each request, attempt or end.
    news: UnboundedSender<Input>,
    link: ConnectionId,
    timer: Pin<Box<Sleep>>,
    /// Empty between turns; kept for its memory.
    deferred: Deferred,
}

impl Driver {
    pub(crate) fn new(
        link: ConnectionId,
        socket: Box<dyn Socket>,
        config: ConnectionConfig,
        credentials: AuthData,
        supervisor: Arc<ReadyList>,
        commands: UnboundedReceiver<SessionCommand>,
        news: UnboundedSender<Input>,
    ) -> Self {
        let write_stall_max = config.keep_alive_interval;
        Self {
            session: Some(Session::new(config, credentials, supervisor, clock::now())),
            socket,
            rx: ReadBuffer::default(),
            reads: false,
            tx: TxBuf::new(),
            unflushed: false,
            pending: false,
            took_at: Instant::now(),
            write_stall_max,
            commands,
            news,
            link,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            deferred: Deferred::new(),
        }
    }

    /// One turn; whether anything moved.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        let Some(session) = &mut self.session else { return Ok(false) };
        let mut deferred = std::mem::take(&mut self.deferred);
        let now = clock::now();
        let mut moved = false;
        loop {
            match self.commands.poll_recv(cx) {
                Poll::Ready(Some(command)) => session.handle_command(command, now, &mut deferred),
                Poll::Ready(None) => return Err(CloseReason::Local("the client is closed")),
                Poll::Pending => break,
            }
            moved = true;
        }
        let has_read = read(session, &mut self.socket, &mut self.rx, cx, &mut deferred)?;
        self.reads |= has_read;
        moved |= has_read;
        if session.poll_deadline().is_some_and(|deadline| deadline.is_due(now)) {
            session.handle_deadline(now, &mut deferred)?;
            if !std::mem::take(&mut self.reads) {
                self.rx.forget_spent();
            }
            moved = true;
        }
        // Who waits goes on while this task sums and writes.
        deferred.fire();
        let waiting = self.tx.len();
        session.poll_transmit(&mut self.tx, now, Some(cx.waker()), &mut deferred)?;
        deferred.fire();
        self.deferred = deferred;
        moved |= self.tx.len() != waiting;
        moved |= self.write(cx)?;
        moved |= self.session.as_ref().is_some_and(|session| session.wants_transmit(&self.tx));
        self.pass_on_notices();
        Ok(moved)
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        let mut moved = false;
        // What was idle until now has stalled for no time yet.
        if !std::mem::replace(&mut self.pending, !self.tx.is_empty() || self.unflushed) {
            self.took_at = Instant::now();
        }
        while !self.tx.is_empty() {
            match poll_write_buf(Pin::new(&mut self.socket), cx, &mut self.tx) {
                Poll::Ready(Ok(0)) => return Err(closed("the connection takes no more bytes")),
                Poll::Ready(Ok(_)) => {
                    self.unflushed = true;
                    moved = true;
                }
                Poll::Ready(Err(error)) => return Err(lost(error)),
                Poll::Pending => break,
            }
        }
        if self.unflushed {
            match Pin::new(&mut self.socket).poll_flush(cx) {
                Poll::Ready(Ok(())) => {
                    self.unflushed = false;
                    moved = true;
                }
                Poll::Ready(Err(error)) => return Err(lost(error)),
                Poll::Pending => {}
            }
        }
        self.pending = !self.tx.is_empty() || self.unflushed;
        if moved {
            self.took_at = Instant::now();
        } else if self.pending && self.took_at.elapsed() >= self.write_stall_max {
            return Err(CloseReason::Silent { after: self.write_stall_max });
        }
        Ok(moved)
    }

    fn pass_on_notices(&mut self) {
        let Some(session) = &mut self.session else { return };
        while let Some(notice) = session.poll_event() {
            // A supervisor that is gone has ended the client; the commands' channel says so next.
            let _ = self.news.send(Input::Session(self.link, notice));
        }
    }

    /// Arms the timer; `true` if it is due already.
    fn arm(&mut self, cx: &mut Context<'_>) -> bool {
        let session = self.session.as_ref().and_then(Session::poll_deadline);
        let stall = (!self.tx.is_empty() || self.unflushed)
            .then(|| Deadline::new((self.took_at + self.write_stall_max).into_std(), "write stall"));
        let Some(deadline) = Deadline::earlier(session, stall) else { return false };
        let at = Instant::from_std(deadline.at);
        // A deadline that moved later is met by the timer firing early, once.
        if at < self.timer.deadline() || self.timer.is_elapsed() {
            self.timer.as_mut().reset(at);
        }
        self.timer.as_mut().poll(cx).is_ready()
    }

    fn end(&mut self, reason: CloseReason) {
        let Some(session) = self.session.take() else { return };
        let mut deferred = Deferred::new();
        for notice in session.end(reason, clock::now(), &mut deferred) {
            let _ = self.news.send(Input::Session(self.link, notice));
        }
    }
}

/// Reads what is there, up to a turn's worth, and lets the session take it.
fn read(
    session: &mut Session,
    socket: &mut Box<dyn Socket>,
    buffer: &mut ReadBuffer,
    cx: &mut Context<'_>,
    deferred: &mut Deferred,
) -> Result<bool, CloseReason> {
    let mut taken = 0;
    while taken < READ_TURN_BYTES {
        buffer.make_room(missing(&buffer.rx, session.limits()));
        match poll_read_buf(Pin::new(&mut *socket), cx, &mut buffer.rx) {
            Poll::Ready(Ok(0)) => return Err(closed("the broker closed the connection")),
            Poll::Ready(Ok(n)) => taken += n,
            Poll::Ready(Err(error)) => return Err(lost(error)),
            Poll::Pending => break,
        }
        session.handle_read(&mut buffer.rx, clock::now(), deferred)?;
    }
    Ok(taken > 0)
}

fn closed(what: &str) -> CloseReason {
    CloseReason::Io(Error::network(what))
}

fn lost(error: io::Error) -> CloseReason {
    CloseReason::Io(Error::network("the connection was lost").with_source(error))
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TURNS_MAX {
            match self.turn(cx) {
                Ok(true) => {}
                Ok(false) => {
                    if !self.arm(cx) {
                        return Poll::Pending;
                    }
                }
                Err(reason) => {
                    self.end(reason);
                    return Poll::Ready(());
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Driver {
    /// The runtime goes away, or the supervisor hung up: guests are detached all the same.
    fn drop(&mut self) {
        self.end(CloseReason::Local("the connection was given up"));
    }
}

/// Says that a connection was never made.
pub(crate) fn not_made(news: &UnboundedSender<Input>, link: ConnectionId, error: Error) {
    let _ = news.send(Input::Session(link, SessionEvent::Ended(CloseReason::Dial(error))));
}
