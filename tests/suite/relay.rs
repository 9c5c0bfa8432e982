//! A relay between client and broker whose connections a test can cut, freeze and refuse.
//!
//! Everything a client does goes through it. Asked over the binary protocol, brokers say that they are reached through the
//! address that was dialed (`proxy_through_service_url`), so the relay is the service URL. Over HTTP they name their own
//! address, and a dialer leads there through the relay.

use std::sync::PoisonError;

use pulsar_native::client::{DialFuture, Dialer, Socket};
use pulsar_native::{ClientBuilder, Error};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle};

use super::*;

/// Each address behind a relay, and the address of the relay that leads there.
type Ways = BTreeMap<String, String>;

pub struct Relay {
    ways: Ways,
    state: Arc<Mutex<State>>,
    accepting: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    /// How many connections were let through.
    opened: usize,
    /// New connections end at once.
    refusing: bool,
    /// How many connections ended that way.
    refused: usize,
    /// The copying of each connection; when it is aborted, both sockets close.
    connections: Vec<AbortHandle>,
    /// Sockets that are open and not read.
    frozen: Vec<TcpStream>,
    /// Set while the connections are to be frozen instead of cut.
    freeze: Option<tokio::sync::watch::Sender<bool>>,
}

impl Relay {
    /// A relay to all that clients of `target` connect to.
    pub async fn to(target: &Target) -> Self {
        let mut relay = Self { ways: Ways::new(), state: Arc::default(), accepting: Vec::new() };
        for far in BTreeSet::from([target.address(), target.broker_address()]) {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            relay.ways.insert(far.clone(), listener.local_addr().expect("an address").to_string());
            relay.accepting.push(tokio::spawn(accept(listener, far, Arc::clone(&relay.state))));
        }
        relay
    }

    /// A client without credentials that reaches the broker through the relay only.
    pub fn builder(&self, target: &Target) -> ClientBuilder {
        match target.is_http() {
            true => target.builder_without_token().dialer(Through(self.ways.clone())),
            false => Client::builder(target.url_of(&self.ways[&target.address()])),
        }
    }

    /// A client that reaches the broker through the relay only.
    pub async fn client(&self, target: &Target, keep_alive_interval: Duration) -> Client {
        let token = Token::new(target.cluster().token(target::Role::Admin));
        let builder = self.builder(target).authentication(token).keep_alive_interval(keep_alive_interval);
        within("the connection", builder.connect()).await.expect("a client")
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many connections were made in all.
    pub fn opened(&self) -> usize {
        self.state().opened
    }

    /// How many connections were refused in all.
    pub fn refused(&self) -> usize {
        self.state().refused
    }

    /// Closes all connections that there are.
    pub fn cut(&self) {
        self.state().connections.drain(..).for_each(|connection| connection.abort());
    }

    /// Whether new connections are closed as they come.
    pub fn refuse(&self, refusing: bool) {
        self.state().refusing = refusing;
    }

    /// All connections stay open and carry nothing; new ones work.
    pub fn freeze(&self) {
        let mut state = self.state();
        state.connections.clear();
        if let Some(freeze) = state.freeze.take() {
            freeze.send_replace(true);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.iter().for_each(JoinHandle::abort);
        self.cut();
    }
}

/// Dials the relay in place of the address behind it.
struct Through(Ways);

impl Dialer for Through {
    fn dial<'a>(&'a self, target: &'a pulsar_native::client::Target) -> DialFuture<'a> {
        Box::pin(async {
            let unknown = || Error::connection(format!("no relay leads to {}", target.address));
            let near = self.0.get(&target.address.to_string()).ok_or_else(unknown)?;
            Ok(Box::new(TcpStream::connect(near).await?) as Box<dyn Socket>)
        })
    }
}

async fn accept(listener: TcpListener, far: String, state: Arc<Mutex<State>>) {
    while let Ok((near, _)) = listener.accept().await {
        let mut inner = state.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.refusing {
            inner.refused += 1;
            continue;
        }
        inner.opened += 1;
        let freeze = inner.freeze.get_or_insert_with(|| tokio::sync::watch::Sender::new(false)).subscribe();
        let copying = tokio::spawn(copy(near, far.clone(), freeze, Arc::clone(&state)));
        inner.connections.push(copying.abort_handle());
    }
}

async fn copy(
    mut near: TcpStream,
    far: String,
    mut freeze: tokio::sync::watch::Receiver<bool>,
    state: Arc<Mutex<State>>,
) {
    let mut far = TcpStream::connect(&far).await.expect("the broker");
    let frozen = tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => false,
        changed = freeze.wait_for(|frozen| *frozen) => changed.is_ok(),
    };
    if frozen {
        state.lock().unwrap_or_else(PoisonError::into_inner).frozen.extend([near, far]);
    }
}
