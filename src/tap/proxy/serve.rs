//! One connection: who speaks what, and the bytes in both directions.

use std::io::{self, Cursor};
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::time::timeout;

use super::rewrite::{Greeting, NamedBroker};
use super::routes::{Met, Upstream};
use super::{TapShared, web};
use crate::capture::{Direction, Segment, SegmentEvent};
use crate::client::{Socket, Target};
use crate::error::{Error, Result};
use crate::machine::control::HostPort;

/// Room in the read buffer: a block of it is shared by the chunks that are read into it.
const READ_BYTES: usize = 64 << 10;

/// With less room left, a new block is taken.
const READ_BYTES_MIN: usize = 4 << 10;

/// How long `accept` pauses after an error, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The first byte of a TLS handshake. A frame begins with 0, the top of its length.
const TLS_HANDSHAKE: u8 = 0x16;

/// Serves the listener of one broker until the tap stops.
pub(super) async fn accept(shared: Arc<TapShared>, route: usize, listener: TcpListener) {
    let mut stopped = shared.stopped.clone();
    loop {
        let accepted = tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, client)) => {
                let Ok(place) = Arc::clone(&shared.places).try_acquire_owned() else {
                    let max = shared.connections_max;
                    shared.queue.note(format!("{client} is turned away: there are {max} connections already"));
                    continue;
                };
                let (shared, mut stopped) = (Arc::clone(&shared), stopped.clone());
                tokio::spawn(async move {
                    let _place = place;
                    tokio::select! {
                        _ = stopped.wait_for(|stopped| *stopped) => {}
                        () = serve(&shared, route, stream, client) => {}
                    }
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve(shared: &Arc<TapShared>, route: usize, stream: TcpStream, client: SocketAddr) {
    let limit = shared.connection_timeout;
    let Greeted { stream, first, is_tls } = match timeout(limit, greet(shared, stream, client)).await {
        Ok(Some(greeted)) => greeted,
        Ok(None) => return,
        Err(_) => return shared.queue.note(format!("{client} is disconnected: it sent nothing within {limit:?}")),
    };
    if first.first().is_some_and(u8::is_ascii_uppercase) {
        let (read, write) = split(stream);
        let stream = tokio::io::join(Cursor::new(first.freeze()).chain(read), write);
        return web::serve(shared, route, stream, is_tls).await;
    }
    match dial_broker(shared, &shared.routes.upstream(route), is_tls).await {
        Ok((broker, address)) => tunnel(shared, stream, first, client, broker, address).await,
        Err(error) => shared.queue.note(format!("{client} cannot be carried on: {error}")),
    }
}

/// A client, and the first bytes that it sent.
struct Greeted {
    stream: Box<dyn Socket>,
    first: BytesMut,
    is_tls: bool,
}

/// Waits for the first bytes of a client, behind the handshake of TLS if it begins one; `None` if it goes away instead.
async fn greet(shared: &TapShared, stream: TcpStream, client: SocketAddr) -> Option<Greeted> {
    let _ = stream.set_nodelay(true);
    let mut first = [0];
    let is_tls = match stream.peek(&mut first).await {
        Ok(0) | Err(_) => return None,
        Ok(_) => first == [TLS_HANDSHAKE],
    };
    let mut stream: Box<dyn Socket> = match is_tls {
        false => Box::new(stream),
        true => match shared.acceptor.accept(stream).await {
            Ok(stream) => Box::new(stream),
            Err(error) => {
                shared.queue.note(format!("no TLS with {client}: {error}"));
                return None;
            }
        },
    };
    let mut first = BytesMut::with_capacity(READ_BYTES);
    let count = stream.read_buf(&mut first).await.ok()?;
    (count > 0).then_some(Greeted { stream, first, is_tls })
}

async fn dial_broker(shared: &TapShared, upstream: &Upstream, is_tls: bool) -> Result<(Box<dyn Socket>, SocketAddr)> {
    let (same, other) = if is_tls { (&upstream.tls, &upstream.plain) } else { (&upstream.plain, &upstream.tls) };
    match (same, other) {
        (Some(address), _) => dial(shared, address, is_tls).await,
        (None, Some(address)) => dial(shared, address, !is_tls).await,
        (None, None) => Err(Error::connection(format!("{} is known as a web server only", upstream.name()))),
    }
}

/// Connects to what a tap carries on to, with TLS or without.
pub(super) async fn dial(shared: &TapShared, to: &HostPort, tls: bool) -> Result<(Box<dyn Socket>, SocketAddr)> {
    let connecting = async {
        let cannot = |error: io::Error| Error::connection(format!("cannot connect to {to}")).with_source(error);
        let mut failed = None;
        for address in lookup_host((&*to.host, to.port)).await.map_err(cannot)? {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    let target = Target { address: to.clone(), server_name: to.host.clone(), tls };
                    let socket: Box<dyn Socket> =
                        if tls { shared.tls.connect(stream, &target).await? } else { Box::new(stream) };
                    return Ok((socket, address));
                }
                Err(error) => failed = Some(error),
            }
        }
        Err(cannot(failed.unwrap_or_else(|| io::ErrorKind::NotFound.into())))
    };
    let limit = shared.connection_timeout;
    timeout(limit, connecting).await.unwrap_or_else(|_| Err(Error::connection(format!("{to} does not answer"))))
}

/// Numbers a connection and reports it as opened, under one lock: a recording is numbered by the order of these reports, and its
/// replay has to name the same connections.
fn open(shared: &TapShared, client: SocketAddr, broker: SocketAddr) -> u64 {
    let mut connections = shared.connections.lock().unwrap_or_else(PoisonError::into_inner);
    *connections += 1;
    let event = SegmentEvent::Opened { client, broker, is_partial: false };
    shared.queue.push(Segment { connection: *connections, at: SystemTime::now(), event });
    *connections
}

async fn tunnel(
    shared: &Arc<TapShared>,
    client: Box<dyn Socket>,
    first: BytesMut,
    client_address: SocketAddr,
    broker: Box<dyn Socket>,
    broker_address: SocketAddr,
) {
    let connection = open(shared, client_address, broker_address);
    let tell = |event| shared.queue.push(Segment { connection, at: SystemTime::now(), event });
    let (client_read, client_write) = split(client);
    let (broker_read, broker_write) = split(broker);
    let up = Pump { direction: Direction::ToBroker, tell: &tell, buffer: first };
    let down = Pump { direction: Direction::ToClient, tell: &tell, buffer: BytesMut::new() };
    let mut greeting = Greeting::default();
    let mut rewriter = greeting.rewriter();
    let to_broker = up.run(client_read, broker_write, |chunk, out| {
        greeting.push(chunk.as_deref().unwrap_or_default());
        out.extend(chunk);
    });
    let to_client = down.run(broker_read, client_write, |chunk, out| match chunk {
        Some(chunk) => rewriter.push(chunk, &mut |named| rewrite(shared, named), out),
        None => out.extend(rewriter.finish()),
    });
    if let Err(direction) = tokio::try_join!(to_broker, to_client) {
        tell(SegmentEvent::Closed { direction, is_reset: true });
    }
}

/// The addresses of the listener in front of a broker; one that is met first gets its listener.
pub(super) fn rewrite(shared: &Arc<TapShared>, named: &NamedBroker) -> NamedBroker {
    let (instead, met) = shared.routes.rewrite(named);
    if let Some(Met { index, listener, name, address }) = met {
        shared.queue.note(format!("broker {name} is met: listening on {address}"));
        let accepting: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> =
            Box::pin(accept(Arc::clone(shared), index, listener));
        tokio::spawn(accepting);
    }
    instead
}

/// One direction.
struct Pump<'a> {
    direction: Direction,
    tell: &'a (dyn Fn(SegmentEvent) + Sync),
    buffer: BytesMut,
}

impl Pump<'_> {
    /// Carries bytes on until there are no more; `pass` gives what to send on for a chunk, and at the end.
    ///
    /// # Errors
    /// The direction of the side that broke the connection: of the receiver where a write fails.
    async fn run(
        mut self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        mut pass: impl FnMut(Option<Bytes>, &mut Vec<Bytes>),
    ) -> Result<(), Direction> {
        let mut out = Vec::new();
        loop {
            let is_end = self.buffer.is_empty() && {
                if self.buffer.capacity() < READ_BYTES_MIN {
                    self.buffer.reserve(READ_BYTES);
                }
                from.read_buf(&mut self.buffer).await.map_err(|_| self.direction)? == 0
            };
            let chunk = (!is_end).then(|| self.buffer.split().freeze());
            (self.tell)(match &chunk {
                Some(bytes) => SegmentEvent::Bytes { direction: self.direction, bytes: bytes.clone() },
                None => SegmentEvent::Closed { direction: self.direction, is_reset: false },
            });
            pass(chunk, &mut out);
            let written = async {
                for bytes in out.drain(..) {
                    to.write_all(&bytes).await?;
                }
                to.flush().await
            };
            written.await.map_err(|_| self.direction.reversed())?;
            if is_end {
                // The peer may have gone first.
                let _ = to.shutdown().await;
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn broken(from: &[u8]) -> Result<(), Direction> {
        let (to, receiver) = tokio::io::duplex(1);
        drop(receiver);
        let pump = Pump { direction: Direction::ToClient, tell: &|_| {}, buffer: BytesMut::new() };
        pump.run(from, to, |chunk, out| out.extend(chunk)).await
    }

    #[tokio::test]
    async fn a_write_that_fails_was_broken_by_its_receiver() {
        assert_eq!(broken(b"for a client that has gone").await, Err(Direction::ToBroker));
        assert_eq!(broken(b"").await, Ok(()), "nothing was to be written");
    }
}
