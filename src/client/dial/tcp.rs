//! TCP, and TLS over it. The addresses of one host name are attempted side by side, as RFC 8305 describes it.
//!
//! | what happens | what follows |
//! | --- | --- |
//! | a name has IPv6 and IPv4 addresses | the families alternate, beginning with that of the resolver's first address |
//! | an attempt has no result yet | the next address is attempted beside it after [`ATTEMPT_DELAY`], or sooner where the connection timeout leaves less |
//! | an attempt fails | the next address is attempted at once |
//! | one connects | it is used, and the other attempts are dropped |
//! | all fail | the error names each address with its cause |
//! | the next dial | first addresses that were never attempted; then those whose last connection was made a minute ago or earlier; then those that failed, were overtaken, or connected less than a minute ago; in each group the one attempted longest ago first |
//!
//! An address that accepts connections behind which no broker answers is found by the last rule: the connection is
//! given up during TLS or CONNECT, the next dial comes soon, and starts with another address.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::task::JoinSet;

use super::super::clock;
use super::over_tls::secure;
use super::{DialFuture, Dialer, Socket, Target};
use crate::error::{Error, Result};
use crate::machine::control::HostPort;

/// How long an attempt is alone before the next one starts beside it: what RFC 8305 recommends.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// The least delay between two attempts, where many addresses have to fit into the connection timeout.
const ATTEMPT_DELAY_MIN: Duration = Duration::from_millis(10);
/// Addresses attempted in one dial.
const ADDRESSES_MAX: usize = 64;
/// Addresses whose last attempt is remembered; beyond it all are forgotten.
const HISTORY_MAX: usize = 1024;
/// A connection that had to be made again sooner than this proves nothing about its address.
const PROVEN_AFTER: Duration = Duration::from_secs(60);

/// The default [`Dialer`].
#[derive(Debug)]
pub(crate) struct TcpDialer {
    #[cfg(feature = "tls")]
    tls: super::TlsOptions,
    connection_timeout: Duration,
    history: Mutex<AttemptHistory>,
}

impl TcpDialer {
    pub(crate) fn new(#[cfg(feature = "tls")] tls: super::TlsOptions, connection_timeout: Duration) -> Self {
        Self {
            #[cfg(feature = "tls")]
            tls,
            connection_timeout,
            history: Mutex::default(),
        }
    }

    async fn connect(&self, address: &HostPort) -> Result<TcpStream> {
        let HostPort { host, port } = address;
        let resolved: Vec<_> =
            lookup_host((&**host, *port)).await.map_err(|error| cannot_connect(address, error))?.collect();
        let ordered = self.with_history(|history| history.order(interleaved(&resolved), clock::now().at));
        let socket = self.connect_first_of(ordered).await.map_err(|error| cannot_connect(address, error))?;
        // The driver gathers frames itself; waiting for more in the kernel only delays them.
        socket.set_nodelay(true).map_err(|error| cannot_connect(address, error))?;
        Ok(socket)
    }

    /// The first connection that comes up. Dropping the future drops the attempts, and counts them as failed.
    async fn connect_first_of(&self, mut addresses: VecDeque<SocketAddr>) -> io::Result<TcpStream> {
        let mut delay = pin!(tokio::time::sleep(Duration::ZERO));
        let attempt_delay = attempt_delay(self.connection_timeout, addresses.len());
        let mut attempts = Attempts { running: JoinSet::new(), pending: Vec::new(), dialer: self };
        let mut failures = Failures::default();
        loop {
            if let Some(address) = addresses.pop_front() {
                attempts.start(address);
                delay.set(tokio::time::sleep(attempt_delay));
            }
            // Waits for a result, or for the delay while there are more addresses.
            let result = std::future::poll_fn(|cx| {
                if let Poll::Ready(result) = attempts.running.poll_join_next(cx) {
                    return Poll::Ready(Some(result));
                }
                if !addresses.is_empty() && delay.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                Poll::Pending
            })
            .await;
            match result {
                None => {}
                Some(None) => return Err(failures.into_error()),
                Some(Some(Ok((address, result)))) => {
                    attempts.pending.retain(|pending| *pending != address);
                    self.with_history(|history| history.record(address, result.is_ok(), clock::now().at));
                    match result {
                        Ok(socket) => return Ok(socket),
                        Err(error) => failures.push(address, error),
                    }
                }
                // An attempt neither panics nor is aborted while it is waited for.
                Some(Some(Err(error))) => return Err(io::Error::other(error)),
            }
        }
    }

    fn with_history<T>(&self, f: impl FnOnce(&mut AttemptHistory) -> T) -> T {
        // No user code runs under this lock; a panic elsewhere leaves at worst a stale entry.
        f(&mut self.history.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Dialer for TcpDialer {
    fn dial<'a>(&'a self, target: &'a Target) -> DialFuture<'a> {
        Box::pin(async move {
            let socket = self.connect(&target.address).await?;
            if target.tls {
                return secure(
                    #[cfg(feature = "tls")]
                    &self.tls,
                    socket,
                    target,
                )
                .await;
            }
            Ok(Box::new(socket) as Box<dyn Socket>)
        })
    }
}

/// The attempts of one dial that have no result. Those left when it is dropped count as failed.
struct Attempts<'a> {
    running: JoinSet<(SocketAddr, io::Result<TcpStream>)>,
    pending: Vec<SocketAddr>,
    dialer: &'a TcpDialer,
}

impl Attempts<'_> {
    fn start(&mut self, address: SocketAddr) {
        self.pending.push(address);
        self.running.spawn(async move { (address, connect(address).await) });
    }
}

impl Drop for Attempts<'_> {
    fn drop(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        self.dialer.with_history(|history| {
            pending.into_iter().for_each(|address| history.record(address, false, clock::now().at))
        });
    }
}

/// One attempt. The system's keep-alive (SO_KEEPALIVE) is on, as in the Java client: so what stands between may keep a
/// connection that is quiet, and a peer that is gone is noticed also where nothing is written.
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    socket.set_keepalive(true)?;
    socket.connect(address).await
}

/// What is known of addresses from earlier attempts.
#[derive(Debug, Default)]
struct AttemptHistory {
    last: HashMap<SocketAddr, LastAttempt>,
}

#[derive(Debug, Clone, Copy)]
struct LastAttempt {
    has_connected: bool,
    at: Instant,
}

impl AttemptHistory {
    fn record(&mut self, address: SocketAddr, has_connected: bool, now: Instant) {
        if self.last.len() >= HISTORY_MAX {
            self.last.clear();
        }
        self.last.insert(address, LastAttempt { has_connected, at: now });
    }

    /// The order of the table at the top of the file. The sort is stable: without a history, the order is kept.
    fn order(&self, mut addresses: Vec<SocketAddr>, now: Instant) -> VecDeque<SocketAddr> {
        // An address without a history sorts first.
        addresses.sort_by_key(|address| {
            self.last.get(address).map(|last| {
                let is_proven = last.has_connected && now.saturating_duration_since(last.at) >= PROVEN_AFTER;
                (!is_proven, last.at)
            })
        });
        addresses.truncate(ADDRESSES_MAX);
        addresses.into()
    }
}

/// Alternates between the families of addresses, each in its order, beginning with that of the first.
fn interleaved(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let Some(first) = addresses.first() else { return Vec::new() };
    let (mut preferred, mut other): (VecDeque<SocketAddr>, VecDeque<SocketAddr>) =
        addresses.iter().partition(|address| address.is_ipv6() == first.is_ipv6());
    let mut all = Vec::with_capacity(addresses.len());
    while !preferred.is_empty() || !other.is_empty() {
        all.extend(preferred.pop_front());
        all.extend(other.pop_front());
    }
    all
}

/// All attempts have started after half the connection timeout, unless that needs less than [`ATTEMPT_DELAY_MIN`].
fn attempt_delay(connection_timeout: Duration, addresses: usize) -> Duration {
    let steps = u32::try_from(addresses.clamp(1, ADDRESSES_MAX)).unwrap_or(1);
    (connection_timeout / 2 / steps).clamp(ATTEMPT_DELAY_MIN, ATTEMPT_DELAY)
}

/// Why each attempt failed.
#[derive(Default)]
struct Failures {
    texts: Vec<String>,
    last: Option<io::Error>,
}

impl Failures {
    fn push(&mut self, address: SocketAddr, error: io::Error) {
        self.texts.push(format!("{address}: {error}"));
        self.last = Some(error);
    }

    fn into_error(self) -> io::Error {
        match self.last {
            None => io::Error::new(io::ErrorKind::NotFound, "the host name has no address"),
            Some(only) if self.texts.len() == 1 => only,
            Some(last) => io::Error::new(last.kind(), self.texts.join(", ")),
        }
    }
}

fn cannot_connect(address: &HostPort, error: io::Error) -> Error {
    Error::network(format!("cannot connect to {address}")).with_source(error)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn dialer() -> TcpDialer {
        TcpDialer::new(
            #[cfg(feature = "tls")]
            super::super::TlsOptions::new(&Default::default()),
            TIMEOUT,
        )
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        (listener, address)
    }

    async fn closed_port() -> SocketAddr {
        listener().await.1
    }

    /// An address that never answers a SYN: its queue of connections is full and nothing accepts them.
    async fn black_hole() -> (Vec<TcpStream>, TcpListener, SocketAddr) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(address("127.0.0.1:0")).expect("a free port");
        let listener = socket.listen(1).expect("a listener");
        let address = listener.local_addr().expect("its address");
        let mut queued = Vec::new();
        while let Ok(connected) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            queued.push(connected.expect("the queue takes it or is silent"));
        }
        (queued, listener, address)
    }

    #[test]
    fn families_alternate_beginning_with_the_resolvers_first() {
        let (a6, b6, c6) = (address("[::1]:1"), address("[::2]:1"), address("[::3]:1"));
        let (a4, b4) = (address("127.0.0.1:1"), address("127.0.0.2:1"));
        assert_eq!(interleaved(&[a6, b6, c6, a4, b4]), [a6, a4, b6, b4, c6]);
        assert_eq!(interleaved(&[a4, a6, b4]), [a4, a6, b4]);
        assert_eq!(interleaved(&[]), []);
    }

    #[test]
    fn all_attempts_start_within_half_the_connection_timeout() {
        assert_eq!(attempt_delay(Duration::from_secs(10), 2), ATTEMPT_DELAY);
        assert_eq!(attempt_delay(Duration::from_secs(1), 10), Duration::from_millis(50));
        assert_eq!(attempt_delay(Duration::ZERO, 1000), ATTEMPT_DELAY_MIN);
        assert_eq!(attempt_delay(Duration::MAX, 0), ATTEMPT_DELAY);
    }

    #[tokio::test]
    async fn a_black_hole_delays_the_first_dial_and_no_later_one() {
        let (_queued, _hole_listener, hole) = black_hole().await;
        let (_listener, good) = listener().await;
        let dialer = dialer();
        let order =
            |dialer: &TcpDialer| dialer.with_history(|history| history.order(vec![hole, good], clock::now().at));
        assert_eq!(order(&dialer), [hole, good]);
        let socket = dialer.connect_first_of(order(&dialer)).await.expect("a connection");
        assert_eq!(socket.peer_addr().expect("its peer"), good);
        let later = clock::now().at + PROVEN_AFTER;
        let order = dialer.with_history(|history| history.order(vec![hole, good], later));
        assert_eq!(order, [good, hole], "an address that was overtaken is attempted last");
    }

    #[tokio::test]
    async fn an_address_that_refuses_makes_way_at_once() {
        let (refused, (_listener, good)) = (closed_port().await, listener().await);
        let dialer = TcpDialer { connection_timeout: Duration::MAX, ..dialer() };
        let socket = dialer.connect_first_of([refused, good].into()).await.expect("a connection");
        assert_eq!(socket.peer_addr().expect("its peer"), good);
        let later = clock::now().at + PROVEN_AFTER;
        assert_eq!(dialer.with_history(|history| history.order(vec![refused, good], later)), [good, refused]);
    }

    #[tokio::test]
    async fn the_keep_alive_of_the_system_is_on() {
        let (_listener, address) = listener().await;
        let socket = dialer().connect_first_of([address].into()).await.expect("a connection");
        let socket = TcpSocket::from_std_stream(socket.into_std().expect("a socket"));
        assert!(socket.keepalive().expect("an option"));
    }

    #[test]
    fn the_resolvers_order_is_kept_and_what_failed_comes_last_for_once() {
        let resolved = ["[::1]:1", "[::2]:1", "127.0.0.1:1", "127.0.0.2:1"].map(address);
        let [a6, b6, a4, b4] = resolved;
        let (mut history, start) = (AttemptHistory::default(), clock::now().at);
        let order = |history: &AttemptHistory, now| history.order(interleaved(&resolved), now);
        assert_eq!(order(&history, start), [a6, a4, b6, b4]);
        history.record(a6, false, start);
        assert_eq!(order(&history, start), [a4, b6, b4, a6], "it is set aside");
        for (seconds, address) in [(1, a4), (2, b6), (3, b4)] {
            history.record(address, false, start + Duration::from_secs(seconds));
        }
        assert_eq!(order(&history, start + Duration::from_secs(4)), [a6, a4, b6, b4], "its turn comes again");
    }

    #[tokio::test]
    async fn addresses_that_connect_take_turns() {
        let ((_first_listener, first), (_second_listener, second)) = (listener().await, listener().await);
        let dialer = dialer();
        let mut used = Vec::new();
        for _ in 0..4 {
            let ordered = dialer.with_history(|history| history.order(vec![first, second], clock::now().at));
            let socket = dialer.connect_first_of(ordered).await.expect("a connection");
            used.push(socket.peer_addr().expect("its peer"));
        }
        assert_eq!(used, [first, second, first, second]);
    }

    #[test]
    fn each_address_gets_its_chance_whatever_became_of_the_others() {
        let (silent, failed, fresh) = (address("127.0.0.1:1"), address("127.0.0.2:1"), address("127.0.0.3:1"));
        let (mut history, start) = (AttemptHistory::default(), clock::now().at);
        history.record(failed, false, start);
        // It accepts connections and is given up each time: the next dial comes soon.
        history.record(silent, true, start + Duration::from_secs(5));
        let at = |seconds| start + Duration::from_secs(seconds);
        let order = |history: &AttemptHistory, now| history.order(vec![silent, failed, fresh], now);
        assert_eq!(order(&history, at(15)), [fresh, failed, silent]);
        history.record(fresh, false, at(16));
        history.record(failed, true, at(17));
        assert_eq!(order(&history, at(20)), [silent, fresh, failed]);
        assert_eq!(order(&history, at(200)), [silent, failed, fresh], "what connected and lasted comes first");
    }

    #[tokio::test]
    async fn an_error_names_every_address() {
        let (first, second) = (closed_port().await, closed_port().await);
        let error = dialer().connect_first_of([first, second].into()).await.expect_err("nothing listens");
        let text = error.to_string();
        assert!(text.contains(&first.to_string()) && text.contains(&second.to_string()), "{text}");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_dial_that_is_dropped_counts_its_attempts_as_failed() {
        let (_queued, _hole_listener, hole) = black_hole().await;
        let dialer = dialer();
        let dropped = tokio::time::timeout(Duration::from_millis(100), dialer.connect_first_of([hole].into())).await;
        assert!(dropped.is_err(), "a black hole never answers");
        assert!(dialer.with_history(|history| !history.last[&hole].has_connected));
    }
}
