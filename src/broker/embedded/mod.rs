//! The tokio side: an accept loop, one task a connection, one timer; all of them around one locked machine.

pub(crate) mod builder;
pub(crate) mod faults;

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, DuplexStream};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};

use self::faults::Faults;
use crate::broker::admin::stats::TopicStats;
use crate::broker::config::BrokerConfig;
use crate::broker::conformance::Violation;
use crate::broker::embedded::builder::EmbeddedBrokerBuilder;
use crate::broker::machine::{Broker, ConnId};
use crate::machine::Now;
use crate::wire::frame::missing;
use crate::wire::tx::TxBuf;

/// Bytes the in-memory connection holds in each direction.
const DUPLEX_BYTES: usize = 64 * 1024;

/// Room made in the read buffer before each read.
const READ_BYTES: usize = 64 * 1024;

/// Reads and writes of a connection before other tasks get their turn.
const TURNS_MAX: u32 = 32;

/// How long `accept` pauses after an error, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A running broker. Clones share it; dropping the last one stops it, which ends its tasks and sockets.
#[derive(Debug, Clone)]
pub struct EmbeddedBroker {
    shared: Arc<Shared>,
    _stop: Arc<StopOnDrop>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<Inner>,
    runtime: Handle,
    url: String,
    address: SocketAddr,
    started: Instant,
    started_wall_ms: u64,
}

#[derive(Debug)]
struct Inner {
    broker: Broker,
    wakers: HashMap<ConnId, Waker>,
    timer: Option<Waker>,
    acceptor: Option<Waker>,
    stopping: bool,
    /// Tasks that still run.
    tasks: usize,
    /// Whoever waits in `stop`.
    stopped: Vec<Waker>,
}

/// Shared by the handles only: the tasks hold [`Shared`] itself.
#[derive(Debug)]
struct StopOnDrop(Arc<Shared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.begin_stop();
    }
}

impl EmbeddedBroker {
    /// The settings, to be changed one by one.
    pub fn builder() -> EmbeddedBrokerBuilder {
        EmbeddedBrokerBuilder::new()
    }

    pub(crate) async fn start(config: BrokerConfig, listen: SocketAddr) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("listening on {listen}: {error}"));
        let listener = TcpListener::bind(listen).await.map_err(named)?;
        let address = listener.local_addr()?;
        let url = format!("pulsar://{address}");
        let started = Instant::now();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started_wall_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        let now = Now { at: started.into_std(), wall_ms: started_wall_ms };
        let inner = Inner {
            broker: Broker::new(config, url.clone(), now),
            wakers: HashMap::new(),
            timer: None,
            acceptor: None,
            stopping: false,
            tasks: 0,
            stopped: Vec::new(),
        };
        let runtime = Handle::current();
        let shared = Arc::new(Shared { state: Mutex::new(inner), runtime, url, address, started, started_wall_ms });
        shared.spawn(accept(Arc::clone(&shared), listener));
        shared.spawn(keep_time(Arc::clone(&shared)));
        Ok(Self { _stop: Arc::new(StopOnDrop(Arc::clone(&shared))), shared })
    }

    /// The service URL, `pulsar://127.0.0.1:port`.
    pub fn url(&self) -> String {
        self.shared.url.clone()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// A connection in memory, served by the same code as one over TCP.
    ///
    /// Works from any thread. After [`stop`](Self::stop) the other end is closed at once.
    pub fn connect(&self) -> DuplexStream {
        let (client, server) = tokio::io::duplex(DUPLEX_BYTES);
        Shared::serve(&self.shared, server);
        client
    }

    /// A token for `subject` that does not expire; empty while authentication is off.
    pub fn token(&self, subject: &str) -> String {
        self.shared.operate(|broker| broker.mint_token(subject, None)).unwrap_or_default()
    }

    /// A token for `subject`, good for `valid_for` rounded up to a whole second, with [`Duration::ZERO`] one that has
    /// expired already; empty while authentication is off.
    pub fn token_expiring(&self, subject: &str, valid_for: Duration) -> String {
        self.shared.operate(|broker| broker.mint_token(subject, Some(valid_for))).unwrap_or_default()
    }

    /// Statistics of a topic, or of one partition; `None` if it does not exist.
    pub fn stats(&self, topic: &str) -> Option<TopicStats> {
        self.shared.operate(|broker| broker.stats(topic))
    }

    /// Names of all topics, partitions one by one.
    pub fn topics(&self) -> Vec<String> {
        self.shared.operate(|broker| broker.topics())
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.shared.operate(|broker| broker.connections())
    }

    /// The rules that clients broke so far; at most 1,000 are kept.
    pub fn violations(&self) -> Vec<Violation> {
        self.shared.operate(|broker| broker.violations().to_vec())
    }

    /// How many topic list watchers (WATCH_TOPIC_LIST) there are, over all connections.
    pub fn topic_list_watchers(&self) -> usize {
        self.shared.operate(|broker| broker.topic_list_watchers())
    }

    /// Makes a topic that is not partitioned. See [`Broker::create_topic`].
    pub fn create_topic(&self, topic: &str) -> bool {
        self.shared.operate(|broker| broker.create_topic(topic))
    }

    /// Makes a partitioned topic or adds partitions to it. See [`Broker::create_partitioned_topic`].
    pub fn create_partitioned_topic(&self, topic: &str, partitions: u32) -> bool {
        self.shared.operate(|broker| broker.create_partitioned_topic(topic, partitions))
    }

    /// Closes all producers and consumers of a topic as a broker does to move it. See [`Broker::unload`].
    pub fn unload(&self, topic: &str) {
        self.shared.operate(|broker| broker.unload(topic));
    }

    /// Unloads a topic and tells producers and consumers to go to `url` without a lookup. See [`Broker::transfer`].
    pub fn transfer(&self, topic: &str, url: &str) {
        self.shared.operate(|broker| broker.transfer(topic, url));
    }

    /// Ends a topic: no further messages. See [`Broker::terminate`].
    pub fn terminate(&self, topic: &str) {
        self.shared.operate(|broker| broker.terminate(topic));
    }

    /// Deletes a topic with all it holds. See [`Broker::delete_topic`].
    pub fn delete_topic(&self, topic: &str) {
        self.shared.operate(|broker| broker.delete_topic(topic));
    }

    /// Ends every connection without a word, as a broker that crashed. It goes on listening.
    pub fn drop_connections(&self) {
        self.shared.operate(Broker::close_all);
    }

    /// The handle that scripts faults.
    pub fn faults(&self) -> Faults<'_> {
        Faults::new(self)
    }

    pub(crate) fn operate<T>(&self, input: impl FnOnce(&mut Broker) -> T) -> T {
        self.shared.operate(input)
    }

    /// Stops: returns when no task and no socket is left.
    ///
    /// # Cancel safety
    /// The stop goes on if the future is dropped.
    pub async fn stop(&self) {
        self.shared.begin_stop();
        poll_fn(|context| {
            let mut inner = self.shared.lock();
            if inner.tasks == 0 {
                return Poll::Ready(());
            }
            inner.stopped.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic of a test task must not hide behind a second one here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        let at = Instant::now();
        let since = u64::try_from(at.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX);
        Now { at: at.into_std(), wall_ms: self.started_wall_ms.saturating_add(since) }
    }

    fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        self.lock().tasks += 1;
        let shared = Arc::clone(self);
        self.runtime.spawn(async move {
            let _counted = Counted(shared);
            task.await;
        });
    }

    /// Serves one connection in a task of its own.
    fn serve<S>(shared: &Arc<Self>, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if shared.lock().stopping {
            return;
        }
        let now = shared.now();
        let (id, tx_bytes_max) = shared.wake(|broker| (broker.connect(now), broker.tx_bytes_max()));
        let connection =
            Served { shared: Arc::clone(shared), id, stream, rx: BytesMut::new(), tx: TxBuf::new(), tx_bytes_max };
        shared.spawn(connection);
    }

    /// An input to the machine; whoever has something to do after it is woken, outside the lock.
    fn wake<T>(&self, input: impl FnOnce(&mut Broker) -> T) -> T {
        let mut woken = Vec::new();
        let mut inner = self.lock();
        let before = inner.broker.poll_deadline();
        let result = input(&mut inner.broker);
        for id in inner.broker.take_ready() {
            woken.extend(inner.wakers.remove(&id));
        }
        if inner.broker.poll_deadline() != before {
            woken.extend(inner.timer.take());
        }
        drop(inner);
        woken.into_iter().for_each(Waker::wake);
        result
    }

    /// The same for an operator's call, which brings the time along.
    fn operate<T>(&self, input: impl FnOnce(&mut Broker) -> T) -> T {
        let now = self.now();
        self.wake(|broker| {
            broker.handle_deadline(now);
            input(broker)
        })
    }

    fn begin_stop(&self) {
        let mut inner = self.lock();
        inner.stopping = true;
        let mut woken: Vec<Waker> = inner.wakers.drain().map(|(_, waker)| waker).collect();
        woken.extend(inner.timer.take());
        woken.extend(inner.acceptor.take());
        drop(inner);
        woken.into_iter().for_each(Waker::wake);
    }
}

/// Counts a task out when it ends, however it ends.
struct Counted(Arc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.tasks -= 1;
        let stopped = if inner.tasks == 0 { std::mem::take(&mut inner.stopped) } else { Vec::new() };
        drop(inner);
        stopped.into_iter().for_each(Waker::wake);
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let accepted = poll_fn(|context| {
            {
                let mut inner = shared.lock();
                if inner.stopping {
                    return Poll::Ready(None);
                }
                inner.acceptor = Some(context.waker().clone());
            }
            listener.poll_accept(context).map(Some)
        })
        .await;
        match accepted {
            None => return,
            Some(Ok((stream, _))) => {
                // Without it small answers wait for the client's delayed ACK; a failure costs only time.
                let _ = stream.set_nodelay(true);
                Shared::serve(&shared, stream);
            }
            Some(Err(_)) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Calls the machine when something is due.
async fn keep_time(shared: Arc<Shared>) {
    let mut sleep = pin!(sleep_until(Instant::now()));
    poll_fn(|context| {
        loop {
            let due = {
                let mut inner = shared.lock();
                if inner.stopping {
                    return Poll::Ready(());
                }
                inner.timer = Some(context.waker().clone());
                inner.broker.poll_deadline()
            };
            let Some(due) = due else { return Poll::Pending };
            ready!(poll_until(sleep.as_mut(), due.at.into(), context));
            let now = shared.now();
            shared.wake(|broker| broker.handle_deadline(now));
        }
    })
    .await;
}

fn poll_until(mut sleep: Pin<&mut Sleep>, at: Instant, context: &mut Context<'_>) -> Poll<()> {
    if sleep.deadline() != at {
        sleep.as_mut().reset(at);
    }
    sleep.poll(context)
}

/// One connection: reads into the machine, writes what it gives.
struct Served<S> {
    shared: Arc<Shared>,
    id: ConnId,
    stream: S,
    rx: BytesMut,
    tx: TxBuf,
    tx_bytes_max: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Served<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        for _ in 0..TURNS_MAX {
            let deaf = {
                let mut inner = this.shared.lock();
                if inner.stopping {
                    return Poll::Ready(());
                }
                inner.wakers.insert(this.id, context.waker().clone());
                inner.broker.is_deaf(this.id)
            };
            // Whoever does not read its answers gets no more requests read.
            let full = deaf || this.tx.len() >= this.tx_bytes_max;
            let read = match if full { Poll::Pending } else { this.poll_read(context) } {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) => true,
                Poll::Pending => false,
            };
            let written = match this.poll_write(context) {
                Poll::Ready(Ok(true) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(false)) => full && !deaf,
                Poll::Pending => false,
            };
            if !read && !written {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Served<S> {
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let limits = self.shared.lock().broker.limits();
        self.rx.reserve(READ_BYTES.max(missing(&self.rx, &limits)));
        // The future holds no state: dropped while pending, it has read nothing.
        let count = ready!(pin!(self.stream.read_buf(&mut self.rx)).poll(context))?;
        let (now, id, rx) = (self.shared.now(), self.id, &mut self.rx);
        self.shared.wake(|broker| broker.receive(id, rx, now));
        Poll::Ready(Ok(count))
    }

    /// Writes all there is; true when the connection is to be closed.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            let (id, tx) = (self.id, &mut self.tx);
            let closing = self.shared.wake(|broker| {
                let closing = broker.closing(id);
                broker.poll_transmit(id, tx);
                closing
            });
            if self.tx.is_empty() {
                ready!(Pin::new(&mut self.stream).poll_flush(context))?;
                return Poll::Ready(Ok(closing));
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

impl<S> Drop for Served<S> {
    fn drop(&mut self) {
        let id = self.id;
        self.shared.operate(|broker| broker.disconnect(id));
        self.shared.lock().wakers.remove(&id);
    }
}
