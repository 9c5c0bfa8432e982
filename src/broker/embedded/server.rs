//! The tasks around the machine: an accept loop, one task a connection, one timer; all of them share one lock.
//!
//! A task that has nothing to do leaves its waker under that lock, before it asks the machine a last time.
//! [`BrokerServer::input`] is the only way into the machine: it wakes what has something to do afterwards, once the
//! lock is gone.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};

use super::connection::ServedConnection;
use crate::broker::config::BrokerConfig;
use crate::broker::ids::ConnId;
use crate::broker::machine::Broker;
use crate::machine::Now;

/// How long `accept` pauses after an error, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The machine and the tasks around it.
#[derive(Debug)]
pub(super) struct BrokerServer {
    state: Mutex<ServerState>,
    runtime: Handle,
    pub(super) url: String,
    pub(super) address: SocketAddr,
    started: Instant,
    /// ms since 1970.
    started_wall_ms: u64,
}

#[derive(Debug)]
pub(super) struct ServerState {
    pub(super) broker: Broker,
    /// Tasks of connections that wait, by their connection.
    pub(super) wakers: HashMap<ConnId, Waker>,
    timer: Option<Waker>,
    acceptor: Option<Waker>,
    pub(super) is_stopping: bool,
    /// Tasks that still run.
    tasks: usize,
    /// Callers of `stop` that wait for the last task.
    stoppers: Vec<Waker>,
}

impl BrokerServer {
    /// Listens, and starts the tasks on the current runtime.
    pub(super) async fn start(config: BrokerConfig, listen: SocketAddr) -> io::Result<Arc<Self>> {
        let on_listen = |error: io::Error| io::Error::new(error.kind(), format!("listening on {listen}: {error}"));
        let listener = TcpListener::bind(listen).await.map_err(on_listen)?;
        let address = listener.local_addr()?;
        let url = format!("pulsar://{address}");
        let started = Instant::now();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started_wall_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        let now = Now { at: started.into_std(), wall_ms: started_wall_ms };
        let state = Mutex::new(ServerState {
            broker: Broker::new(config, url.clone(), now),
            wakers: HashMap::new(),
            timer: None,
            acceptor: None,
            is_stopping: false,
            tasks: 0,
            stoppers: Vec::new(),
        });
        let server = Arc::new(Self { state, runtime: Handle::current(), url, address, started, started_wall_ms });
        server.spawn(accept_connections(Arc::clone(&server), listener));
        server.spawn(run_timer(Arc::clone(&server)));
        Ok(server)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, ServerState> {
        // A panic in a test's task is reported by that test, not by a second one here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Now {
        let at = Instant::now();
        let since = u64::try_from(at.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX);
        Now { at: at.into_std(), wall_ms: self.started_wall_ms.saturating_add(since) }
    }

    fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        self.lock().tasks += 1;
        let running = RunningTask(Arc::clone(self));
        self.runtime.spawn(async move {
            let _running = running;
            task.await;
        });
    }

    /// Serves one connection in a task of its own.
    pub(super) fn serve<S>(self: &Arc<Self>, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if self.lock().is_stopping {
            return;
        }
        let now = self.now();
        let id = self.input(|broker| broker.connect(now));
        self.spawn(ServedConnection::new(Arc::clone(self), id, stream));
    }

    /// An input to the machine. Tasks that have something to do after it are woken outside the lock.
    pub(super) fn input<T>(&self, input: impl FnOnce(&mut Broker) -> T) -> T {
        let mut woken = Vec::new();
        let mut state = self.lock();
        let deadline = state.broker.poll_deadline();
        let result = input(&mut state.broker);
        for id in state.broker.take_ready() {
            woken.extend(state.wakers.remove(&id));
        }
        if state.broker.poll_deadline() != deadline {
            woken.extend(state.timer.take());
        }
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        result
    }

    /// An administrative call: the machine learns the time first.
    pub(super) fn call<T>(&self, call: impl FnOnce(&mut Broker) -> T) -> T {
        let now = self.now();
        self.input(|broker| {
            broker.handle_deadline(now);
            call(broker)
        })
    }

    /// Ends all tasks, without waiting for them.
    pub(super) fn begin_stop(&self) {
        let mut state = self.lock();
        state.is_stopping = true;
        let mut woken: Vec<Waker> = state.wakers.drain().map(|(_, waker)| waker).collect();
        woken.extend(state.timer.take());
        woken.extend(state.acceptor.take());
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Ready when no task is left.
    pub(super) fn poll_stopped(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.tasks == 0 {
            return Poll::Ready(());
        }
        state.stoppers.push(context.waker().clone());
        Poll::Pending
    }
}

/// Counts a task out when it ends, however it ends.
struct RunningTask(Arc<BrokerServer>);

impl Drop for RunningTask {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.tasks -= 1;
        let stoppers = if state.tasks == 0 { std::mem::take(&mut state.stoppers) } else { Vec::new() };
        drop(state);
        stoppers.into_iter().for_each(Waker::wake);
    }
}

async fn accept_connections(server: Arc<BrokerServer>, listener: TcpListener) {
    loop {
        let accepted = poll_fn(|context| {
            {
                let mut state = server.lock();
                if state.is_stopping {
                    return Poll::Ready(None);
                }
                state.acceptor = Some(context.waker().clone());
            }
            listener.poll_accept(context).map(Some)
        })
        .await;
        match accepted {
            None => return,
            Some(Ok((stream, _))) => {
                // Without it small answers wait for the client's delayed ACK; a failure costs only time.
                let _ = stream.set_nodelay(true);
                server.serve(stream);
            }
            Some(Err(_)) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Calls the machine when something is due.
async fn run_timer(server: Arc<BrokerServer>) {
    let mut sleep = pin!(sleep_until(Instant::now()));
    poll_fn(|context| {
        loop {
            let deadline = {
                let mut state = server.lock();
                if state.is_stopping {
                    return Poll::Ready(());
                }
                state.timer = Some(context.waker().clone());
                state.broker.poll_deadline()
            };
            let Some(deadline) = deadline else { return Poll::Pending };
            ready!(poll_until(sleep.as_mut(), deadline.at.into(), context));
            let now = server.now();
            server.input(|broker| broker.handle_deadline(now));
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
