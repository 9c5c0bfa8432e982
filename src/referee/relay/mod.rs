//! The wire between the client under test and the broker: a relay that records each frame, and on which a scenario can change
//! what the client reads.
//!
//! The client only ever sees addresses of the relay: those in the broker's answers are rewritten. A frame that is not
//! changed passes byte for byte, and a side that does not read holds the other one up, as without a relay.

mod recording;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

pub(super) use self::recording::{By, Event, Recording, What};
use crate::wire::{Command, Frame, frames};

/// A frame with a greater length is forwarded as bytes, not cut.
const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Injections that wait for one connection.
const INJECTIONS_MAX: usize = 64;

/// How long the relay waits for the broker's socket.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two pieces of a frame that arrives in pieces.
const PIECE_PAUSE: Duration = Duration::from_micros(200);

/// The bytes that the client reads instead of a frame; `None` for frames that are not meant.
type Replace = Box<dyn Fn(&Frame) -> Option<Bytes> + Send>;

/// The relay of one scenario; dropped, it ends its connections.
pub(super) struct Relay {
    shared: Arc<Shared>,
    urls: Vec<String>,
    _tasks: JoinSet<()>,
}

struct Shared {
    state: Mutex<State>,
    started: Instant,
    /// Counts changes of the recording.
    changed: watch::Sender<u64>,
    /// The broker's own URLs, and those of the relay for them.
    rewrites: Vec<(String, String)>,
}

#[derive(Default)]
struct State {
    recording: Recording,
    connections: u64,
    injections: HashMap<u64, mpsc::Sender<Bytes>>,
    replacements: Vec<Replace>,
    /// Bytes to the client go out in pieces of so many.
    piece_bytes: Option<usize>,
}

impl Relay {
    /// Listens for each of these brokers, at free ports of `listen` but for the first. The client gets the host `advertise`.
    pub(super) async fn start(listen: SocketAddr, advertise: Option<&str>, brokers: &[String]) -> io::Result<Self> {
        let mut listeners = Vec::new();
        let mut rewrites = Vec::new();
        for (number, url) in brokers.iter().enumerate() {
            let port = if number == 0 { listen.port() } else { 0 };
            let listener = TcpListener::bind((listen.ip(), port)).await?;
            rewrites.push((url.clone(), advertised(listener.local_addr()?, advertise)));
            listeners.push(listener);
        }
        let urls = rewrites.iter().map(|(_, relay)| relay.clone()).collect();
        let (changed, _) = watch::channel(0);
        let shared = Arc::new(Shared { state: Mutex::default(), started: Instant::now(), changed, rewrites });
        let mut tasks = JoinSet::new();
        for (broker, listener) in listeners.into_iter().enumerate() {
            let address = brokers[broker].trim_start_matches("pulsar://").to_owned();
            tasks.spawn(accept(Arc::clone(&shared), broker, address, listener));
        }
        Ok(Self { shared, urls, _tasks: tasks })
    }

    /// Where the client reaches the broker of this number.
    pub(super) fn url(&self, broker: usize) -> &str {
        &self.urls[broker]
    }

    /// A note for the story.
    pub(super) fn note(&self, note: impl fmt::Display) {
        self.shared.push(0, What::Note(note.to_string()));
    }

    /// Notes of others, such as the lines of the glue.
    pub(super) fn notes(&self) -> impl Fn(String) + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move |note| shared.push(0, What::Note(note))
    }

    /// Looks at what was recorded so far.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Recording) -> T) -> T {
        look(&self.shared.lock().recording)
    }

    /// The number of the next event, to look only at what comes.
    pub(super) fn mark(&self) -> usize {
        self.look(|recording| recording.events().len())
    }

    /// Waits until `look` finds something; `None` when it has not within `patience`.
    pub(super) async fn until<T>(
        &self,
        patience: Duration,
        mut look: impl FnMut(&Recording) -> Option<T>,
    ) -> Option<T> {
        let mut changed = self.shared.changed.subscribe();
        let found = async {
            loop {
                changed.mark_unchanged();
                if let Some(found) = self.look(&mut look) {
                    return Some(found);
                }
                if changed.changed().await.is_err() {
                    return None;
                }
            }
        };
        timeout(patience, found).await.ok().flatten()
    }

    /// Sends bytes to the client on every connection, between two frames of the broker.
    pub(super) fn inject(&self, what: &str, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        self.note(format_args!("referee sends {what} to the client ({} bytes)", bytes.len()));
        for injections in self.shared.lock().injections.values() {
            let _ = injections.try_send(bytes.clone());
        }
    }

    /// Instead of the next frame of the broker that is meant, the client reads other bytes.
    pub(super) fn replace(&self, replace: impl Fn(&Frame) -> Option<Bytes> + Send + 'static) {
        self.shared.lock().replacements.push(Box::new(replace));
    }

    /// Whether a frame that is to be replaced has not come.
    pub(super) fn has_replacements(&self) -> bool {
        !self.shared.lock().replacements.is_empty()
    }

    /// From now on bytes reach the client in pieces of so many.
    pub(super) fn cut_into_pieces(&self, bytes: usize) {
        self.shared.lock().piece_bytes = Some(bytes);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, connection: u64, what: What) {
        let at = self.started.elapsed();
        self.lock().recording.push(Event { at, connection, what });
        self.changed.send_modify(|count| *count += 1);
    }

    fn record(&self, connection: u64, by: By, bytes: Bytes) {
        let what = match frames(bytes.clone()).next() {
            Some(Ok(frame)) => What::Frame { by, frame: Box::new(frame), bytes },
            Some(Err(error)) => What::Unreadable { by, bytes: bytes.len(), why: error.to_string() },
            None => return,
        };
        self.push(connection, what);
    }

    /// What the client reads instead of a frame of the broker.
    fn changed_for_client(&self, bytes: Bytes) -> Bytes {
        let Some(Ok(frame)) = frames(bytes.clone()).next() else { return bytes };
        {
            let mut state = self.lock();
            let mut found =
                state.replacements.iter().enumerate().filter_map(|(at, replace)| Some((at, replace(&frame)?)));
            if let Some((at, replaced)) = found.next() {
                drop(found);
                drop(state.replacements.remove(at));
                return replaced;
            }
        }
        let Some(rewritten) = self.rewritten(frame) else { return bytes };
        let mut out = BytesMut::new();
        Frame::Other(rewritten).encode(&mut out);
        out.freeze()
    }

    /// The command with the relay's addresses for those of the brokers; `None` if it has none.
    fn rewritten(&self, frame: Frame) -> Option<Command> {
        let Frame::Other(mut command) = frame else { return None };
        let place = match &mut command {
            Command::LookupResponse(response) => &mut response.broker_service_url,
            Command::CloseProducer(close) => &mut close.assigned_broker_service_url,
            Command::CloseConsumer(close) => &mut close.assigned_broker_service_url,
            _ => return None,
        };
        let url = place.as_deref()?;
        let (_, relay) = self.rewrites.iter().find(|(broker, _)| broker == url)?;
        *place = Some(relay.clone());
        Some(command)
    }

    fn piece_bytes(&self) -> Option<usize> {
        self.lock().piece_bytes
    }
}

/// The URL of a listener for the client. An address for all interfaces is none to connect to.
fn advertised(listener: SocketAddr, host: Option<&str>) -> String {
    match (host, listener.ip()) {
        (Some(host), _) if host.contains(':') => format!("pulsar://[{host}]:{}", listener.port()),
        (Some(host), _) => format!("pulsar://{host}:{}", listener.port()),
        (None, ip) if ip.is_unspecified() => format!("pulsar://127.0.0.1:{}", listener.port()),
        (None, _) => format!("pulsar://{listener}"),
    }
}

async fn accept(shared: Arc<Shared>, broker: usize, address: String, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(serve(Arc::clone(&shared), broker, address.clone(), stream))),
                // Such as too many open files.
                Err(_) => sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(shared: Arc<Shared>, broker: usize, address: String, client: TcpStream) {
    let (injector, injected) = mpsc::channel(INJECTIONS_MAX);
    let connection = {
        let mut state = shared.lock();
        state.connections += 1;
        let connection = state.connections;
        state.injections.insert(connection, injector);
        connection
    };
    shared.push(connection, What::Opened { broker });
    let by = match timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(server)) => relay(&shared, connection, client, server, injected).await,
        _ => By::Broker,
    };
    shared.lock().injections.remove(&connection);
    shared.push(connection, What::Closed { by });
}

/// Until one side ends; which one.
async fn relay(
    shared: &Shared,
    connection: u64,
    client: TcpStream,
    server: TcpStream,
    injected: mpsc::Receiver<Bytes>,
) -> By {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        by = up(shared, connection, from_client, to_server) => by,
        by = down(shared, connection, from_server, to_client, injected) => by,
    }
}

async fn up(shared: &Shared, connection: u64, mut client: OwnedReadHalf, mut server: OwnedWriteHalf) -> By {
    let mut rx = BytesMut::new();
    loop {
        if !matches!(client.read_buf(&mut rx).await, Ok(1..)) {
            return By::Client;
        }
        while let Some(frame) = cut_one(&mut rx) {
            shared.record(connection, By::Client, frame.clone());
            if server.write_all(&frame).await.is_err() {
                return By::Broker;
            }
        }
    }
}

async fn down(
    shared: &Shared,
    connection: u64,
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    mut injected: mpsc::Receiver<Bytes>,
) -> By {
    let mut rx = BytesMut::new();
    loop {
        let bytes = tokio::select! {
            read = server.read_buf(&mut rx) => match read {
                Ok(1..) => None,
                _ => {
                    // The broker ended within a frame.
                    let _ = client.write_all(&rx).await;
                    return By::Broker;
                }
            },
            Some(bytes) = injected.recv() => Some(bytes),
        };
        if let Some(bytes) = bytes {
            if write(shared, &mut client, &bytes).await.is_err() {
                return By::Client;
            }
        }
        while let Some(frame) = cut_one(&mut rx) {
            let bytes = shared.changed_for_client(frame);
            shared.record(connection, By::Broker, bytes.clone());
            if write(shared, &mut client, &bytes).await.is_err() {
                return By::Client;
            }
        }
    }
}

async fn write(shared: &Shared, client: &mut OwnedWriteHalf, bytes: &[u8]) -> io::Result<()> {
    let Some(piece_bytes) = shared.piece_bytes() else { return client.write_all(bytes).await };
    for piece in bytes.chunks(piece_bytes.max(1)) {
        client.write_all(piece).await?;
        sleep(PIECE_PAUSE).await;
    }
    Ok(())
}

/// The first whole frame of what was read; bytes that cannot be a frame are taken as they are.
fn cut_one(rx: &mut BytesMut) -> Option<Bytes> {
    let total = u32::from_be_bytes(*rx.first_chunk()?) as usize;
    if !(4..=FRAME_BYTES_MAX).contains(&total) {
        return Some(rx.split().freeze());
    }
    let frame = total + 4;
    (rx.len() >= frame).then(|| rx.split_to(frame).freeze())
}
