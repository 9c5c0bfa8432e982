//! The task of one connection: reads into the machine, writes its output.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use super::server::BrokerServer;
use crate::broker::ids::ConnId;
use crate::broker::machine::Peer;
use crate::wire::frame::missing;
use crate::wire::tx::TxBuf;

/// Capacity reserved in the read buffer before each read.
const READ_BYTES: usize = 64 * 1024;

/// Reads and writes of a connection before other tasks get their turn.
const TURNS_MAX: u32 = 32;

/// A future that is done when the connection has ended. Dropped, it ends the connection.
struct ServedConnection<S> {
    server: Arc<BrokerServer>,
    id: ConnId,
    stream: S,
    rx: BytesMut,
    tx: TxBuf,
}

/// Serves one connection to one broker of the cluster, in a task of its own. A broker that stops drops the stream instead.
pub(super) fn serve_connection<S>(server: &Arc<BrokerServer>, broker: usize, stream: S, peer: Peer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if server.lock().is_stopping {
        return;
    }
    let now = server.now();
    let id = server.input(|machine| machine.connect_to(broker, peer, now));
    server.spawn(ServedConnection { server: Arc::clone(server), id, stream, rx: BytesMut::new(), tx: TxBuf::new() });
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for ServedConnection<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        for _ in 0..TURNS_MAX {
            let (is_paused, high_water_mark) = {
                let mut state = this.server.lock();
                if state.is_stopping {
                    return Poll::Ready(());
                }
                state.wakers.insert(this.id, context.waker().clone());
                (state.broker.reads_paused(this.id), state.broker.write_buffer_high_water_mark())
            };
            // A client that does not read its responses gets no more requests read.
            let is_full = this.tx.len() >= high_water_mark;
            let has_read = match if is_full || is_paused { Poll::Pending } else { this.poll_read(context) } {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) => true,
                Poll::Pending => false,
            };
            // All output is written: reads that waited for that can continue.
            let may_read = match this.poll_write(context) {
                Poll::Ready(Ok(true) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(false)) => is_full && !is_paused,
                Poll::Pending => false,
            };
            if !has_read && !may_read {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> ServedConnection<S> {
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let limits = self.server.lock().broker.limits();
        self.rx.reserve(READ_BYTES.max(missing(&self.rx, &limits)));
        // The future holds no state: dropped while pending, it has read nothing.
        let count = ready!(pin!(self.stream.read_buf(&mut self.rx)).poll(context))?;
        let (now, id, rx) = (self.server.now(), self.id, &mut self.rx);
        self.server.input(|broker| broker.receive(id, rx, now));
        Poll::Ready(Ok(count))
    }

    /// Writes all there is; true when the connection is to be closed.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            let (id, tx) = (self.id, &mut self.tx);
            let is_closing = self.server.input(|broker| {
                let is_closing = broker.closing(id);
                broker.poll_transmit(id, tx);
                is_closing
            });
            if self.tx.is_empty() {
                ready!(Pin::new(&mut self.stream).poll_flush(context))?;
                return Poll::Ready(Ok(is_closing));
            }
            while !self.tx.is_empty() {
                let count = ready!(Pin::new(&mut self.stream).poll_write(context, self.tx.chunk()))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.tx.advance(count);
            }
        }
    }
}

impl<S> Drop for ServedConnection<S> {
    fn drop(&mut self) {
        let id = self.id;
        self.server.call(|broker| broker.disconnect(id));
        self.server.lock().wakers.remove(&id);
    }
}
