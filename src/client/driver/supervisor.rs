//! The task of a client's supervisor: it carries out what the supervisor decides, and owns the tasks of the connections.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::clusters::Clusters;
use super::connection::ConnectionDriver;
use super::{SupervisorHandle, fetch_credentials, until_given_up};
use crate::client::auth::Authentication;
use crate::client::clock;
use crate::client::dial::{Dialer, Target, dial};
use crate::client::failover::{ServiceUrlControl, ServiceUrlProvider};
use crate::client::observe::{DialObserver, Observer};
use crate::client::runtime::{AsyncTimer, Runtime, TaskSet};
use crate::client::user_code::catch_panic;
use crate::error::{Error, ErrorKind, Result};
use crate::machine::connection::ConnectionConfig;
use crate::machine::control::{
    Action, AuthContext, AuthData, BrokerKey, CloseReason, ClusterId, ConnectionId, HostPort, Input, SessionCommand,
    SessionEvent,
};
use crate::machine::supervisor::Supervisor;
use crate::machine::{Deadline, Deferred};
use crate::wire::MAX_MESSAGE_SIZE_DEFAULT;

/// The options that all connections of a client share.
pub(crate) struct DialConfig {
    pub(crate) authentication: Arc<dyn Authentication>,
    pub(crate) dialer: Arc<dyn Dialer>,
    pub(crate) connection_timeout: Duration,
    /// The hosts of the service URL.
    pub(crate) service_hosts: Vec<HostPort>,
    /// The proxy in front of all brokers that routes by the server name of TLS.
    pub(crate) sni_proxy: Option<HostPort>,
    pub(crate) keep_alive_interval: Duration,
    pub(crate) operation_timeout: Duration,
    pub(crate) client_version: String,
    #[cfg(feature = "http")]
    pub(crate) http: crate::client::http::HttpOptions,
}

impl DialConfig {
    /// Where this broker is dialed.
    pub(crate) fn target(&self, key: &BrokerKey) -> Result<Target> {
        let target = Target::from_key(key);
        match &self.sni_proxy {
            Some(proxy) => target.behind_sni_proxy(proxy),
            None => Ok(target),
        }
    }

    /// How long dial and handshake with this broker may take together: each of several hosts of the service URL has an
    /// equal share of the operation timeout, so that one that is silent leaves time for the others.
    pub(crate) fn share_of(&self, key: &BrokerKey) -> Duration {
        let hosts = u32::try_from(self.service_hosts.len()).unwrap_or(u32::MAX);
        match hosts > 1 && self.service_hosts.contains(&key.physical) {
            true => self.operation_timeout / if mutation!(FirstHostTakesAll) { 1 } else { hosts },
            false => Duration::MAX,
        }
    }
}

/// The supervisor's task. It ends once the client is closed and no task of a connection is left.
pub(crate) struct SupervisorDriver<R: Runtime> {
    supervisor: Supervisor,
    runtime: R,
    inputs: UnboundedReceiver<Input>,
    /// The other end of `inputs`, for the tasks.
    handle: SupervisorHandle,
    clusters: Arc<Clusters>,
    /// Commands to the task of each connection; dropping the sender ends the task.
    connections: HashMap<ConnectionId, UnboundedSender<SessionCommand>>,
    /// The tasks of connections and of credential fetches, at most one fetch per connection, and of the provider of
    /// service URLs. They end with the driver.
    tasks: R::Tasks,
    /// Dropped to end the task of the provider of service URLs.
    close_provider: Option<oneshot::Sender<()>>,
    timer: R::Timer,
    /// The instant that the timer is set to.
    timer_at: Option<Instant>,
    observer: Observer,
}

impl<R: Runtime> SupervisorDriver<R> {
    pub(crate) fn new(
        mut supervisor: Supervisor,
        runtime: R,
        handle: SupervisorHandle,
        inputs: UnboundedReceiver<Input>,
        clusters: Arc<Clusters>,
        observer: Observer,
    ) -> Self {
        observer.start(&mut supervisor);
        let (tasks, timer) = (runtime.new_task_set(), runtime.new_timer());
        Self {
            supervisor,
            runtime,
            inputs,
            handle,
            clusters,
            connections: HashMap::new(),
            tasks,
            close_provider: None,
            timer,
            timer_at: None,
            observer,
        }
    }

    /// Runs the provider of service URLs until the client is closed.
    pub(crate) fn run_provider(&mut self, provider: Arc<dyn ServiceUrlProvider>, control: ServiceUrlControl) {
        let (close, closed) = oneshot::channel();
        self.close_provider = Some(close);
        self.tasks.spawn(async move {
            let running = catch_panic(|| provider.run(control));
            until_closed(closed, running).await;
        });
    }

    /// Passes the inputs to the supervisor and carries out its actions; whether there was progress.
    fn step(&mut self, cx: &mut Context<'_>) -> bool {
        let mut deferred = Deferred::new();
        let now = clock::now();
        let mut progress = false;
        let mut switched_to = None;
        while let Poll::Ready(Some(input)) = self.inputs.poll_recv(cx) {
            self.observer.on_input(&input, now);
            match &input {
                Input::SwitchCluster(cluster, _) => switched_to = switched_to.max(Some(*cluster)),
                Input::CloseClient(_) => drop(self.close_provider.take()),
                _ => {}
            }
            self.supervisor.handle(input, now, &mut deferred);
            progress = true;
        }
        self.supervisor.handle_ready(Some(cx.waker()), now, &mut deferred);
        if self.supervisor.poll_deadline().is_some_and(|deadline| deadline.is_due(now)) {
            self.supervisor.handle_deadline(now, &mut deferred);
            progress = true;
        }
        self.observer.on_notices(&mut self.supervisor, now);
        self.observer.handle_deadline(now);
        while let Some(action) = self.supervisor.poll_action() {
            self.observer.on_action(&action, now);
            self.carry_out(action);
        }
        if let Some(cluster) = switched_to {
            // Connections of earlier ones are not dialed any more.
            self.clusters.forget_before(cluster);
        }
        progress
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::FetchCredentials(id, cluster, context) => self.fetch_credentials(id, cluster, context),
            Action::Dial { connection, key, credentials } => self.dial(connection, key, credentials),
            Action::Command(id, command) => {
                if let Some(commands) = self.connections.get(&id) {
                    // A driver that has ended has reported that already.
                    let _ = commands.send(command);
                }
            }
            Action::Disconnect(id) => {
                // The task ends when its commands do.
                self.connections.remove(&id);
            }
        }
    }

    fn fetch_credentials(&mut self, id: ConnectionId, cluster: ClusterId, context: AuthContext) {
        let Some(config) = self.clusters.get(cluster) else { return };
        let (runtime, handle) = (self.runtime.clone(), self.handle.clone());
        self.tasks.spawn(async move {
            let fetch = || config.authentication.credentials(&context);
            let limit = config.operation_timeout;
            let fetched = fetch_credentials(&runtime, limit, "Authentication::credentials", fetch).await;
            let _ = handle.inputs.send(Input::Credentials(id, fetched.and_then(check_size)));
        });
    }

    fn dial(&mut self, id: ConnectionId, key: BrokerKey, credentials: AuthData) {
        let Some(config) = self.clusters.get(key.cluster) else { return };
        let (sender, commands) = unbounded_channel();
        self.connections.retain(|_, commands| !commands.is_closed());
        self.connections.insert(id, sender);
        #[cfg(feature = "http")]
        if key.transport == crate::machine::control::Transport::Http {
            let (runtime, supervisor) = (self.runtime.clone(), self.handle.clone());
            let driver = crate::client::http::HttpDriver { id, key, runtime, config, supervisor, commands };
            self.tasks.spawn(driver.run());
            return;
        }
        let attempt = DialAttempt {
            id,
            key,
            credentials,
            runtime: self.runtime.clone(),
            config,
            supervisor: self.handle.clone(),
            commands,
            observer: self.observer.of_dial(id),
        };
        self.tasks.spawn(attempt.run());
    }

    /// Sets the timer; `true` if a deadline has passed already.
    fn arm(&mut self, cx: &mut Context<'_>) -> bool {
        let deadline = Deadline::earlier(self.supervisor.poll_deadline(), self.observer.poll_deadline());
        let Some(deadline) = deadline else { return false };
        if self.timer_at != Some(deadline.at) {
            self.timer.reset(deadline.at);
            self.timer_at = Some(deadline.at);
        }
        self.timer.poll(cx).is_ready()
    }
}

/// The task of a connection, from the dial on.
struct DialAttempt<R> {
    id: ConnectionId,
    key: BrokerKey,
    credentials: AuthData,
    runtime: R,
    config: Arc<DialConfig>,
    supervisor: SupervisorHandle,
    commands: UnboundedReceiver<SessionCommand>,
    observer: DialObserver,
}

impl<R: Runtime> DialAttempt<R> {
    /// Dials, then drives the connection until it ends.
    async fn run(mut self) {
        let config = self.config.clone();
        let (share, started) = (config.share_of(&self.key), clock::now().at);
        let limit = config.connection_timeout.min(share);
        let target = config.target(&self.key);
        let dialing = async { dial(&self.runtime, &*config.dialer, &target?, limit).await };
        let Some(dialed) = until_given_up(&mut self.commands, dialing).await else { return };
        match dialed {
            Ok(socket) => {
                let runtime = self.runtime.clone();
                let took = clock::now().at.saturating_duration_since(started);
                self.observer.on_dialed(took);
                let handshake_timeout = share.saturating_sub(took);
                let config = connection_config(&self.key, &config, handshake_timeout);
                let Self { id, credentials, supervisor, commands, .. } = self;
                ConnectionDriver::new(id, runtime, socket, config, credentials, supervisor, commands).await;
            }
            Err(error) => {
                let _ =
                    self.supervisor.inputs.send(Input::Session(self.id, SessionEvent::Ended(CloseReason::Dial(error))));
            }
        }
    }
}

/// Drops `future` when the other end of `closed` is dropped.
async fn until_closed(mut closed: oneshot::Receiver<()>, future: impl Future) {
    let mut future = pin!(future);
    poll_fn(|cx| match Pin::new(&mut closed).poll(cx) {
        Poll::Ready(_) => Poll::Ready(()),
        Poll::Pending => future.as_mut().poll(cx).map(drop),
    })
    .await;
}

fn connection_config(key: &BrokerKey, config: &DialConfig, handshake_timeout: Duration) -> ConnectionConfig {
    ConnectionConfig {
        address: key.name(),
        tls: key.tls,
        proxy_to_broker_url: key.proxy_to_broker_url(),
        client_version: config.client_version.clone(),
        keep_alive_interval: config.keep_alive_interval,
        handshake_timeout,
        operation_timeout: config.operation_timeout,
    }
}

/// Whether CONNECT has room for the credentials. The broker's own limit is not known before its answer.
fn check_size(credentials: AuthData) -> Result<AuthData> {
    let (bytes, max) = (credentials.data.len(), MAX_MESSAGE_SIZE_DEFAULT as usize);
    if bytes <= max {
        return Ok(credentials);
    }
    let what = format!("authentication: credentials of {bytes} bytes are too large; a broker takes at most {max}");
    Err(Error::local(ErrorKind::InvalidArgument, what))
}

impl<R: Runtime> Future for SupervisorDriver<R> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.runtime.inspect_supervisor(&mut this.supervisor);
        loop {
            let progress = this.step(cx);
            if this.tasks.poll_empty(cx).is_ready() && this.supervisor.is_drained() {
                this.observer.on_closed(clock::now());
                return Poll::Ready(());
            }
            if !progress && !this.arm(cx) {
                return Poll::Pending;
            }
        }
    }
}

impl<R: Runtime> Drop for SupervisorDriver<R> {
    /// The runtime shuts down: connections end, and every call that waits ends with an error.
    fn drop(&mut self) {
        let gone = Error::local(ErrorKind::Closed, "the client's runtime was shut down");
        self.supervisor.fail_all(&gone, &mut Deferred::new());
    }
}
