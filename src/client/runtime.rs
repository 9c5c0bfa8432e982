//! The task of the supervisor: it carries out what the supervisor decides.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};

use super::auth::Authentication;
use super::clock;
use super::dial::{Dialer, dial};
use super::driver::{Driver, not_made};
use crate::error::{Error, ErrorKind};
use crate::machine::connection::ConnectionConfig;
use crate::machine::control::{Action, AuthData, BrokerKey, ConnectionId, Input, SessionCommand};
use crate::machine::supervisor::Supervisor;
use crate::machine::{Deferred, ReadyList};

/// What dialing needs.
#[derive(Clone)]
pub(crate) struct Dialing {
    pub(crate) authentication: Arc<dyn Authentication>,
    pub(crate) dialer: Arc<dyn Dialer>,
    pub(crate) connect_timeout: Duration,
    pub(crate) keep_alive_interval: Duration,
    pub(crate) operation_timeout: Duration,
    pub(crate) client_version: String,
}

/// The supervisor and the connections it asked for.
pub(crate) struct Runtime {
    supervisor: Supervisor,
    ready: Arc<ReadyList>,
    inputs: UnboundedReceiver<Input>,
    news: UnboundedSender<Input>,
    dialing: Dialing,
    /// How to speak to each connection's task.
    links: HashMap<ConnectionId, UnboundedSender<SessionCommand>>,
    /// Connections, and fetches of credentials, at most one for each. They end with the runtime.
    tasks: JoinSet<()>,
    timer: Pin<Box<Sleep>>,
}

impl Runtime {
    pub(crate) fn new(
        supervisor: Supervisor,
        ready: Arc<ReadyList>,
        inputs: UnboundedReceiver<Input>,
        news: UnboundedSender<Input>,
        dialing: Dialing,
    ) -> Self {
        let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        Self { supervisor, ready, inputs, news, dialing, links: HashMap::new(), tasks: JoinSet::new(), timer }
    }

    /// Takes what has come in; whether there was anything.
    fn turn(&mut self, cx: &mut Context<'_>) -> bool {
        let mut deferred = Deferred::new();
        let now = clock::now();
        let mut moved = false;
        while let Poll::Ready(Some(input)) = self.inputs.poll_recv(cx) {
            self.supervisor.handle(input, now, &mut deferred);
            moved = true;
        }
        self.supervisor.handle_ready(Some(cx.waker()), now, &mut deferred);
        if self.supervisor.poll_deadline().is_some_and(|deadline| deadline.is_due(now)) {
            self.supervisor.handle_deadline(now, &mut deferred);
            moved = true;
        }
        while let Some(action) = self.supervisor.poll_action() {
            self.carry_out(action);
        }
        moved
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::FetchCredentials(link) => self.fetch(link),
            Action::Dial { connection: link, key, credentials } => self.dial(link, key, credentials),
            Action::Command(link, command) => {
                if let Some(commands) = self.links.get(&link) {
                    // A driver that has ended has said so already.
                    let _ = commands.send(command);
                }
            }
            Action::Disconnect(link) => {
                // The driver ends when its commands do.
                self.links.remove(&link);
            }
        }
    }

    fn fetch(&mut self, link: ConnectionId) {
        let (authentication, news) = (self.dialing.authentication.clone(), self.news.clone());
        let timeout = self.dialing.operation_timeout;
        self.tasks.spawn(async move {
            let fetched = tokio::time::timeout(timeout, authentication.credentials()).await;
            let fetched = fetched.unwrap_or_else(|_| {
                let what = format!("timed out after {timeout:?} waiting for the credentials");
                Err(Error::local(ErrorKind::Authentication, what).retriable(true))
            });
            let _ = news.send(Input::Credentials(link, fetched));
        });
    }

    fn dial(&mut self, link: ConnectionId, key: BrokerKey, credentials: AuthData) {
        let (commands, inbox) = unbounded_channel();
        let config = ConnectionConfig {
            address: key.logical.to_string().into(),
            tls: key.tls,
            proxy_to_broker_url: key.proxy_to_broker_url(),
            client_version: self.dialing.client_version.clone(),
            keep_alive_interval: self.dialing.keep_alive_interval,
            operation_timeout: self.dialing.operation_timeout,
        };
        let run = run_link(
            link,
            key,
            self.dialing.clone(),
            config,
            credentials,
            self.ready.clone(),
            inbox,
            self.news.clone(),
        );
        self.links.retain(|_, commands| !commands.is_closed());
        self.links.insert(link, commands);
        self.tasks.spawn(run);
    }

    /// Arms the timer; `true` if it is due already.
    fn arm(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.supervisor.poll_deadline() else { return false };
        let at = Instant::from_std(deadline.at);
        if at != self.timer.deadline() || self.timer.is_elapsed() {
            self.timer.as_mut().reset(at);
        }
        self.timer.as_mut().poll(cx).is_ready()
    }
}

#[allow(clippy::too_many_arguments, reason = "the whole life of one connection, from dial to end")]
async fn run_link(
    link: ConnectionId,
    key: BrokerKey,
    dialing: Dialing,
    config: ConnectionConfig,
    credentials: AuthData,
    supervisor: Arc<ReadyList>,
    mut commands: UnboundedReceiver<SessionCommand>,
    news: UnboundedSender<Input>,
) {
    let mut dialing_now = pin!(dial(&*dialing.dialer, &key, dialing.connect_timeout));
    let dialed = poll_fn(|cx| {
        // Nothing is told to a link before it is up, so this is the end of the channel: hung up.
        if commands.poll_recv(cx).is_ready() {
            return Poll::Ready(None);
        }
        dialing_now.as_mut().poll(cx).map(Some)
    });
    let Some(dialed) = dialed.await else { return };
    match dialed {
        Ok(socket) => Driver::new(link, socket, config, credentials, supervisor, commands, news).await,
        Err(error) => not_made(&news, link, error),
    }
}

impl Future for Runtime {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let moved = self.turn(cx);
            while let Poll::Ready(Some(_)) = self.tasks.poll_join_next(cx) {}
            if self.supervisor.is_drained() && self.tasks.is_empty() {
                return Poll::Ready(());
            }
            if !moved && !self.arm(cx) {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Runtime {
    /// The tokio runtime goes away: connections end, and what waits is told that nobody will answer.
    fn drop(&mut self) {
        let gone = Error::local(ErrorKind::Closed, "the client's runtime was shut down");
        self.supervisor.fail_all(&gone, &mut Deferred::new());
    }
}
