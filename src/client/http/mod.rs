//! Lookups over HTTP, for `http://` and `https://` service URLs.
//!
//! For the supervisor an HTTP host is a connection like any other ([`Transport::Http`](crate::machine::control::Transport)):
//! it comes up, it answers requests, it ends. [`HttpDriver`] is its task. Each request is a GET, and what comes back is
//! the command that a broker would have answered with.
//!
//! | file | what |
//! | --- | --- |
//! | `request.rs`, `response.rs` | commands as paths, answers as commands |
//! | `exchange.rs` | a request on its way: credentials, redirects, the connection it goes over |
//! | `kept.rs` | connections that are kept between requests |
//! | `admin.rs` | what is read besides lookups |
//! | `redirect.rs` | which redirects are followed, and to which origins credentials are sent |
//! | `connection.rs` | one HTTP/1.1 connection |
//! | `fetch.rs`, `endpoint.rs` | requests to servers that are no brokers, and their URLs |

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use self::exchange::{Exchange, Failed};
use super::driver::{DialConfig, SupervisorHandle, until_given_up};
use super::runtime::{Runtime, TaskSet};
use crate::machine::connection::peer::PeerInfo;
use crate::machine::control::{
    BrokerKey, CloseReason, ConnectionId, Input, RequestToken, SessionCommand, SessionEvent,
};
use crate::wire::MAX_MESSAGE_SIZE_DEFAULT;
use crate::wire::command::Command;

pub(crate) mod admin;
pub(in crate::client) mod connection;
pub(in crate::client) mod endpoint;
mod exchange;
pub(in crate::client) mod fetch;
mod kept;
pub(in crate::client) mod redirect;
mod request;
pub(crate) mod response;

pub(crate) use redirect::RedirectHosts;

/// What HTTP needs beside the options of all connections.
#[derive(Debug, Default)]
pub(crate) struct HttpOptions {
    /// The path of the service URL.
    pub(crate) base_path: String,
    /// Origins that credentials are sent to after a redirect, besides the hosts of the service URL.
    pub(crate) redirect_hosts: RedirectHosts,
}

/// The task of one HTTP host. It ends when the supervisor gives the connection up, or when the host cannot be reached.
pub(super) struct HttpDriver<R: Runtime> {
    pub(super) id: ConnectionId,
    pub(super) key: BrokerKey,
    pub(super) runtime: R,
    pub(super) config: Arc<DialConfig>,
    pub(super) supervisor: SupervisorHandle,
    /// Closed when the supervisor gives the connection up.
    pub(super) commands: UnboundedReceiver<SessionCommand>,
}

impl<R: Runtime> HttpDriver<R> {
    pub(super) async fn run(mut self) {
        let exchange = Arc::new(Exchange::new(self.runtime.clone(), self.config.clone(), self.key.clone()));
        let shaking = exchange.handshake(self.config.share_of(&self.key));
        match until_given_up(&mut self.commands, shaking).await {
            None => {}
            Some(Err(reason)) => self.report(SessionEvent::Ended(reason)),
            Some(Ok(())) => {
                self.report(SessionEvent::Connected(self.peer()));
                if let Some(reason) = self.serve(exchange).await {
                    self.report(SessionEvent::Ended(reason));
                }
            }
        }
    }

    /// Serves requests, each in a task of its own, until one finds that the host is gone. There are as many as the
    /// supervisor has slots for.
    async fn serve(&mut self, exchange: Arc<Exchange<R>>) -> Option<CloseReason> {
        let mut tasks = self.runtime.new_task_set();
        let (gone, mut hosts_gone) = unbounded_channel();
        poll_fn(|cx| {
            while let Poll::Ready(command) = self.commands.poll_recv(cx) {
                match command {
                    None => return Poll::Ready(None),
                    Some(SessionCommand::Request(token, command)) => {
                        tasks.spawn(answer(
                            exchange.clone(),
                            self.id,
                            token,
                            command,
                            self.supervisor.clone(),
                            gone.clone(),
                        ));
                    }
                    Some(SessionCommand::Open(endpoint, attempt)) => {
                        let error = request::unsupported("a watch of topics");
                        self.report(SessionEvent::OpenFailed(endpoint.id(), attempt, error));
                    }
                    Some(SessionCommand::End(reason)) => return Poll::Ready(Some(reason)),
                    // There are no challenges over HTTP.
                    Some(SessionCommand::AuthResponse(_)) => {}
                }
            }
            // Frees what the tasks that have ended leave.
            let _ = tasks.poll_empty(cx);
            hosts_gone.poll_recv(cx)
        })
        .await
    }

    fn report(&self, event: SessionEvent) {
        let _ = self.supervisor.inputs.send(Input::Session(self.id, event));
    }

    fn peer(&self) -> PeerInfo {
        PeerInfo {
            address: self.key.logical.to_string().into(),
            server_version: String::new(),
            protocol_version: 0,
            max_message_size: MAX_MESSAGE_SIZE_DEFAULT,
            supports_topic_watchers: false,
            supports_partitions_without_creation: true,
        }
    }
}

async fn answer<R: Runtime>(
    exchange: Arc<Exchange<R>>,
    id: ConnectionId,
    token: RequestToken,
    command: Box<Command>,
    supervisor: SupervisorHandle,
    gone: UnboundedSender<CloseReason>,
) {
    let response = match exchange.ask(&command).await {
        Ok(response) => Ok(Box::new(response)),
        Err(Failed::Request(error)) => Err(error),
        Err(Failed::Host(reason)) => {
            let _ = gone.send(reason);
            return;
        }
    };
    let _ = supervisor.inputs.send(Input::Session(id, SessionEvent::Response(token, response)));
}
