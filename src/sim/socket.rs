//! The client's end of a simulated connection, and the dialer that opens it.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::network::PairId;
use super::runtime::SimTimer;
use super::world::SharedWorld;
use crate::client::runtime::AsyncTimer;
use crate::client::{DialFuture, Dialer, Socket, Target};
use crate::error::Error;
use crate::wire::frame::frames;

/// How many of 1000 flushes are pending at their first poll.
const SLOW_FLUSHES_PER_MILLE: u64 = 50;

/// Connects one client to the simulated brokers.
pub(super) struct SimDialer {
    pub(super) world: SharedWorld,
    /// The number of the client.
    pub(super) client: usize,
}

impl Dialer for SimDialer {
    fn dial<'a>(&'a self, target: &'a Target) -> DialFuture<'a> {
        Box::pin(async move {
            let (world, client) = (&self.world, self.client);
            let dial = world.lock().begin_dial(client, &target.address.host);
            let mut timer = SimTimer::new(world.clone());
            timer.reset(dial.ends_at);
            poll_fn(|cx| timer.poll(cx)).await;
            if world.lock().clusters[dial.cluster].proxy.is_lost(dial.broker) {
                // Nothing answers.
                std::future::pending::<()>().await;
            }
            if dial.is_refused {
                return Err(Error::network(format!("cannot connect to {}: connection refused", target.address)));
            }
            let id = world.lock().finish_dial(client, &dial);
            Ok(Box::new(SimSocket { world: world.clone(), id, is_flushing: false }) as Box<dyn Socket>)
        })
    }
}

/// Reads what has arrived, and writes what fits into the network. Dropping it closes the connection.
struct SimSocket {
    world: SharedWorld,
    id: PairId,
    /// A flush was deferred.
    is_flushing: bool,
}

impl AsyncRead for SimSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut world = self.world.lock();
        match world.network.read(self.id, buf.remaining(), cx.waker()) {
            Poll::Ready(Ok(bytes)) => {
                let id = self.id;
                world.forbid_in_audit("no lost wake-up", || format!("{id:?} had {} bytes to read", bytes.len()));
                buf.put_slice(&bytes);
                Poll::Ready(Ok(()))
            }
            other => other.map_ok(drop),
        }
    }
}

impl AsyncWrite for SimSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut bytes = BytesMut::new();
        bufs.iter().for_each(|buf| bytes.extend_from_slice(buf));
        let bytes = bytes.freeze();
        let mut world = self.world.lock();
        let now = world.now.at;
        let result = world.network.write_up(self.id, bytes.clone(), now, cx.waker());
        if matches!(result, Poll::Ready(Ok(_))) {
            let id = self.id;
            let text = || format!("{id:?} had {:?} to write", frames(bytes).collect::<Vec<_>>());
            world.forbid_in_audit("no lost wake-up", text);
            world.schedule_network();
        }
        result
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_slow = !self.is_flushing && self.world.lock().rng.chance_per_mille(SLOW_FLUSHES_PER_MILLE);
        self.is_flushing = is_slow;
        if is_slow {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        self.world.lock().close_socket(self.id);
    }
}
