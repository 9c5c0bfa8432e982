//! A TCP proxy inside the test: each connection of a client goes through it and dies after a random number of bytes,
//! mostly by a closed socket, sometimes by silence.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pulsar_native::client::{DialFuture, Dialer, Socket, Target};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::report::say;
use crate::rng::Rng;

const PIPE_BYTES: usize = 256 * 1024;
const COPY_BYTES: usize = 16 * 1024;
/// The bytes of a connection, both ways together, before it dies.
const LIFE_BYTES: (u64, u64) = (100_000, 4_000_000);
/// One connection in so many dies within its first frames: in the handshake, in a lookup, while it attaches.
const STILLBORN_ONE_IN: u64 = 8;
const STILLBORN_BYTES: (u64, u64) = (0, 3_000);
/// One death in so many is silent.
const SILENT_ONE_IN: u64 = 8;
/// A silent connection is given up by then at the latest.
const SILENCE_MAX: Duration = Duration::from_secs(40);

/// How a connection ends.
#[derive(Clone, Copy)]
enum Death {
    /// The socket is closed.
    Cut,
    /// The socket stays; what the client writes is taken and lost, nothing comes back.
    Swallow,
    /// The socket stays; nothing is taken any more, nothing comes back.
    Stall,
}

/// Decides when connections die, and counts them.
pub(crate) struct Cutter {
    rng: Mutex<Rng>,
    armed: AtomicBool,
    all: watch::Sender<u64>,
    pub(crate) cuts: AtomicU64,
    pub(crate) silences: AtomicU64,
}

impl Cutter {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            rng: Mutex::new(Rng::new(seed)),
            armed: AtomicBool::new(false),
            all: watch::channel(0).0,
            cuts: AtomicU64::new(0),
            silences: AtomicU64::new(0),
        })
    }

    pub(crate) fn dialer(self: &Arc<Self>) -> CuttingDialer {
        CuttingDialer(self.clone())
    }

    /// Whether connections die by themselves; those that are there get their death too when it is switched on.
    pub(crate) fn arm(&self, armed: bool) {
        self.armed.store(armed, Ordering::Relaxed);
    }

    /// Cuts all connections now.
    pub(crate) fn cut_all(&self) {
        self.all.send_modify(|count| *count += 1);
    }

    fn plan(&self) -> (u64, Death) {
        let mut rng = self.rng.lock().unwrap();
        let (low, high) = if rng.one_in(STILLBORN_ONE_IN) { STILLBORN_BYTES } else { LIFE_BYTES };
        let bytes = rng.between(low, high);
        let death = match rng.between(1, 2 * SILENT_ONE_IN) {
            1 => Death::Swallow,
            2 => Death::Stall,
            _ => Death::Cut,
        };
        (bytes, death)
    }

    async fn carry(self: Arc<Self>, mut tcp: TcpStream, mut near: DuplexStream) {
        let (bytes, death) = self.plan();
        let mut all = self.all.subscribe();
        let life = Life { armed: &self.armed, left: AtomicU64::new(bytes) };
        let (mut from_broker, mut to_broker) = tcp.split();
        let (mut from_client, mut to_client) = tokio::io::split(&mut near);
        let spent = tokio::select! {
            spent = life.copy(&mut from_broker, &mut to_client) => spent,
            spent = life.copy(&mut from_client, &mut to_broker) => spent,
            _ = all.changed() => true,
        };
        if !spent {
            return;
        }
        match death {
            Death::Cut => {
                self.cuts.fetch_add(1, Ordering::Relaxed);
            }
            Death::Swallow => {
                self.silences.fetch_add(1, Ordering::Relaxed);
                say("a connection swallows");
                let mut nowhere = tokio::io::sink();
                let swallow = tokio::io::copy(&mut from_client, &mut nowhere);
                let _ = tokio::time::timeout(SILENCE_MAX, swallow).await;
            }
            Death::Stall => {
                self.silences.fetch_add(1, Ordering::Relaxed);
                say("a connection stalls");
                tokio::time::sleep(SILENCE_MAX).await;
            }
        }
    }
}

/// What a connection may still carry.
struct Life<'a> {
    armed: &'a AtomicBool,
    left: AtomicU64,
}

impl Life<'_> {
    /// Copies until one side ends (`false`) or the bytes are spent (`true`), in the middle of a frame as a rule.
    async fn copy(&self, from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> bool {
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let Ok(count @ 1..) = from.read(&mut buffer).await else { return false };
            let armed = self.armed.load(Ordering::Relaxed);
            let left = self.left.load(Ordering::Relaxed);
            let passes = if armed { left.min(count as u64) } else { count as u64 };
            self.left.store(left.saturating_sub(if armed { passes } else { 0 }), Ordering::Relaxed);
            if to.write_all(&buffer[..passes as usize]).await.is_err() {
                return false;
            }
            if passes < count as u64 {
                return true;
            }
        }
    }
}

/// TCP through the proxy.
pub(crate) struct CuttingDialer(Arc<Cutter>);

impl Dialer for CuttingDialer {
    fn dial<'a>(&'a self, target: &'a Target) -> DialFuture<'a> {
        Box::pin(async move {
            let tcp = TcpStream::connect((&*target.address.host, target.address.port)).await?;
            tcp.set_nodelay(true)?;
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            tokio::spawn(self.0.clone().carry(tcp, far));
            Ok(Box::new(near) as Box<dyn Socket>)
        })
    }
}
