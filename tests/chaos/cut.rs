//! A TCP proxy inside the test: each connection of a client goes through it and is cut at a random byte, mostly by a
//! closed socket, sometimes by silence.
//!
//! A connection gets some time first. If bytes alone counted, a client that has much to catch up on would lose each
//! connection while it does so, and never make progress.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pulsar_native::client::{DialFuture, Dialer, Socket, Target};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tokio_util::io::InspectReader;

use crate::report::say;
use crate::rng::Rng;

const PIPE_BYTES: usize = 256 * 1024;
const COPY_BYTES: usize = 16 * 1024;
/// How long a connection is left alone, in milliseconds, before its bytes are counted.
const DELAY_MS: (u64, u64) = (1_000, 10_000);
/// How many bytes, both ways together, are its last.
const LAST_BYTES: (u64, u64) = (0, 3_000);
/// One connection in this number is not left alone: it is cut in the handshake, in a lookup, while it attaches.
const CUT_EARLY_ONE_IN: u64 = 8;
/// One cut in this number is silent.
const SILENT_ONE_IN: u64 = 8;
/// A silent connection is closed after this time at the latest. Both ends are to find out by themselves, with their PINGs.
const SILENCE_MAX: Duration = Duration::from_secs(40);

/// How a connection ends.
#[derive(Clone, Copy)]
enum CutKind {
    /// The socket is closed.
    Cut,
    /// The socket stays; what the client writes is taken and lost, nothing comes back.
    Swallow,
    /// The socket stays; nothing is read, nothing comes back.
    Stall,
}

/// Decides when connections are cut, and counts the cuts.
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

    /// Whether connections are cut by plan; those that are open when it is switched on are cut as well.
    pub(crate) fn arm(&self, armed: bool) {
        self.armed.store(armed, Ordering::Relaxed);
    }

    /// Cuts all connections now.
    pub(crate) fn cut_all(&self) {
        self.all.send_modify(|count| *count += 1);
    }

    fn plan(&self) -> (CutPlan<'_>, CutKind) {
        let mut rng = self.rng.lock().unwrap();
        let delay_ms = if rng.one_in(CUT_EARLY_ONE_IN) { 0 } else { rng.between(DELAY_MS.0, DELAY_MS.1) };
        let left = rng.between(LAST_BYTES.0, LAST_BYTES.1);
        let kind = match rng.between(1, 2 * SILENT_ONE_IN) {
            1 => CutKind::Swallow,
            2 => CutKind::Stall,
            _ => CutKind::Cut,
        };
        let counted_from = Instant::now() + Duration::from_millis(delay_ms);
        (CutPlan { armed: &self.armed, counted_from, left: AtomicU64::new(left) }, kind)
    }

    /// `hung_up` ends when the client has no more use for the connection.
    async fn carry(self: Arc<Self>, mut tcp: TcpStream, mut near: DuplexStream, hung_up: oneshot::Receiver<()>) {
        let (plan, kind) = self.plan();
        let mut all = self.all.subscribe();
        let (mut from_broker, mut to_broker) = tcp.split();
        let (mut from_client, mut to_client) = tokio::io::split(&mut near);
        let spent = tokio::select! {
            spent = plan.copy(&mut from_broker, &mut to_client) => spent,
            spent = plan.copy(&mut from_client, &mut to_broker) => spent,
            _ = all.changed() => true,
        };
        if !spent {
            return;
        }
        match kind {
            CutKind::Cut => {
                self.cuts.fetch_add(1, Ordering::Relaxed);
            }
            CutKind::Swallow => {
                self.silences.fetch_add(1, Ordering::Relaxed);
                say("a connection swallows");
                let _ = timeout(SILENCE_MAX, tokio::io::copy(&mut from_client, &mut tokio::io::sink())).await;
            }
            CutKind::Stall => {
                self.silences.fetch_add(1, Ordering::Relaxed);
                say("a connection stalls");
                let mut nowhere = tokio::io::sink();
                let both = async { tokio::join!(hung_up, tokio::io::copy(&mut from_broker, &mut nowhere)) };
                let _ = timeout(SILENCE_MAX, both).await;
            }
        }
    }
}

/// What a connection may still carry.
struct CutPlan<'a> {
    armed: &'a AtomicBool,
    counted_from: Instant,
    left: AtomicU64,
}

impl CutPlan<'_> {
    /// Copies until one side ends (`false`) or the bytes are spent (`true`), in the middle of a frame as a rule.
    async fn copy(&self, from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> bool {
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let Ok(count @ 1..) = from.read(&mut buffer).await else { return false };
            let mut passes = count as u64;
            if self.armed.load(Ordering::Relaxed) && Instant::now() >= self.counted_from {
                let left = self.left.load(Ordering::Relaxed);
                passes = passes.min(left);
                self.left.store(left - passes, Ordering::Relaxed);
            }
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
            let (in_use, hung_up) = oneshot::channel();
            tokio::spawn(self.0.clone().carry(tcp, far, hung_up));
            // Nothing is inspected: `in_use` goes when the client drops its socket.
            let near = InspectReader::new(near, move |_| {
                let _ = &in_use;
            });
            Ok(Box::new(near) as Box<dyn Socket>)
        })
    }
}
