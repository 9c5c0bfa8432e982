//! The machine under its lock, and the count of the tasks that share it.
//!
//! A task that has nothing to do leaves its waker under the lock before it polls the machine a last time.
//! [`BrokerServer::input`] is the only way into the machine: it wakes the tasks that have something to do afterwards,
//! once the lock is released.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::listeners::Addresses;
use crate::broker::config::BrokerConfig;
use crate::broker::ids::ConnId;
use crate::broker::machine::Broker;
use crate::machine::Now;

/// The machine and the tasks around it.
#[derive(Debug)]
pub(super) struct BrokerServer {
    state: Mutex<ServerState>,
    runtime: Handle,
    pub(super) addresses: Addresses,
    started: Instant,
    /// ms since 1970.
    started_wall_ms: u64,
}

#[derive(Debug)]
pub(super) struct ServerState {
    pub(super) broker: Broker,
    /// Tasks of connections that wait, by their connection.
    pub(super) wakers: HashMap<ConnId, Waker>,
    pub(super) timer: Option<Waker>,
    /// The accept loops, by [`AcceptorId`].
    acceptors: Vec<Acceptor>,
    pub(super) is_stopping: bool,
    /// Tasks that still run.
    tasks: usize,
    /// Callers of `stop` that wait for the last task.
    stoppers: Vec<Waker>,
    /// Assertions of tests, which look again after each input.
    watching: Vec<Waker>,
}

/// An accept loop.
#[derive(Debug, Clone, Copy)]
pub(super) struct AcceptorId(usize);

#[derive(Debug)]
struct Acceptor {
    /// Which of the cluster's brokers it accepts for.
    broker: usize,
    waker: Option<Waker>,
    is_stopping: bool,
    /// Its socket is closed.
    has_ended: bool,
}

impl ServerState {
    /// Leaves the waker of an accept loop; false if the broker stops.
    pub(super) fn wait(&mut self, acceptor: AcceptorId, waker: &Waker) -> bool {
        let Some(place) = self.acceptors.get_mut(acceptor.0) else { return false };
        place.waker = Some(waker.clone());
        !self.is_stopping && !place.is_stopping
    }
}

impl BrokerServer {
    /// A machine without tasks, on the current runtime and its clock.
    pub(super) fn new(mut config: BrokerConfig, addresses: Addresses) -> Arc<Self> {
        config.broker_service_url_tls = config.broker_service_url_tls.or_else(|| addresses.tls_url());
        config.web_service_url = addresses.http_url();
        config.web_service_url_tls = addresses.https_url();
        config.ca_pem.clone_from(&addresses.ca_pem);
        let started = Instant::now();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started_wall_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        let now = Now { at: started.into_std(), wall_ms: started_wall_ms };
        let mut broker = Broker::new(config, addresses.url_of(0), now);
        for number in 1..addresses.brokers() {
            broker.add_broker(addresses.url_of(number));
        }
        let state = Mutex::new(ServerState {
            broker,
            wakers: HashMap::new(),
            timer: None,
            acceptors: Vec::new(),
            is_stopping: false,
            tasks: 0,
            stoppers: Vec::new(),
            watching: Vec::new(),
        });
        Arc::new(Self { state, runtime: Handle::current(), addresses, started, started_wall_ms })
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

    /// A place for one more accept loop.
    pub(super) fn add_acceptor(&self, broker: usize) -> AcceptorId {
        let acceptors = &mut self.lock().acceptors;
        acceptors.push(Acceptor { broker, waker: None, is_stopping: false, has_ended: false });
        AcceptorId(acceptors.len() - 1)
    }

    /// An accept loop has closed its socket.
    pub(super) fn on_acceptor_ended(&self, acceptor: AcceptorId) {
        let mut state = self.lock();
        if let Some(found) = state.acceptors.get_mut(acceptor.0) {
            found.has_ended = true;
        }
        let watching = std::mem::take(&mut state.watching);
        drop(state);
        watching.into_iter().for_each(Waker::wake);
    }

    /// Ends the accept loops of one broker; ready when their sockets are closed.
    pub(super) fn poll_stop_accepting(&self, broker: usize, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        let mut woken = Vec::new();
        for acceptor in state.acceptors.iter_mut().filter(|one| one.broker == broker && !one.has_ended) {
            acceptor.is_stopping = true;
            woken.extend(acceptor.waker.take());
        }
        let is_closed = state.acceptors.iter().all(|one| one.broker != broker || one.has_ended);
        if !is_closed {
            state.watching.push(context.waker().clone());
        }
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        if is_closed { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Runs a task that has to end before the broker has stopped.
    pub(super) fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        self.lock().tasks += 1;
        let running = RunningTask(Arc::clone(self));
        self.runtime.spawn(async move {
            let _running = running;
            task.await;
        });
    }

    /// An input to the machine. Tasks that have something to do after it are woken outside the lock.
    pub(super) fn input<T>(&self, input: impl FnOnce(&mut Broker) -> T) -> T {
        let mut state = self.lock();
        let mut woken = std::mem::take(&mut state.watching);
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

    /// Looks at the machine, and wakes a task after the next input.
    pub(super) fn watch<T>(&self, waker: &Waker, look: impl FnOnce(&Broker) -> T) -> T {
        let mut state = self.lock();
        if !state.watching.iter().any(|known| known.will_wake(waker)) {
            state.watching.push(waker.clone());
        }
        look(&state.broker)
    }

    /// An administrative call: the machine gets the current time first.
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
        woken.extend(state.acceptors.iter_mut().filter_map(|acceptor| acceptor.waker.take()));
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
