//! The tasks of a client: one [`SupervisorDriver`], and one [`ConnectionDriver`](connection::ConnectionDriver) for each
//! connection.
//!
//! They carry out what the machines decide. Each is one hand-written `poll`, over the timers and tasks of a
//! [`Runtime`](super::runtime::Runtime) and the sockets of a [`Dialer`](super::Dialer).

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::runtime::{Runtime, timeout};
use super::user_code::catch_panic;
use crate::error::{Error, ErrorKind, Result};
use crate::machine::ReadyList;
use crate::machine::control::{Input, SessionCommand};

mod clusters;
mod connection;
mod read_buffer;
mod supervisor;

pub(crate) use clusters::Clusters;
pub(crate) use supervisor::{DialConfig, SupervisorDriver};

/// How handles and connections reach the supervisor.
#[derive(Clone)]
pub(crate) struct SupervisorHandle {
    /// Requests and reports to the supervisor.
    pub(crate) inputs: UnboundedSender<Input>,
    /// The supervisor's list, which serves an endpoint that is not attached to a connection.
    pub(crate) ready: Arc<ReadyList>,
}

/// The output of `future`, or `None` if the supervisor gives the connection up before. It is for a connection that is not
/// up: no command is sent to it, so what comes is the end of the channel.
pub(crate) async fn until_given_up<F: Future>(
    commands: &mut UnboundedReceiver<SessionCommand>,
    future: F,
) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match commands.poll_recv(cx) {
        Poll::Ready(_) => Poll::Ready(None),
        Poll::Pending => future.as_mut().poll(cx).map(Some),
    })
    .await
}

/// What the application's source of credentials gives within `limit`; `name` is that of the method which `fetch` calls.
pub(crate) async fn fetch_credentials<T, F: Future<Output = Result<T>>>(
    runtime: &impl Runtime,
    limit: Duration,
    name: &str,
    fetch: impl FnOnce() -> F,
) -> Result<T> {
    let limit = if mutation!(SupplierIsWaitedFor) { Duration::MAX } else { limit };
    match timeout(runtime, limit, catch_panic(fetch)).await {
        Some(Ok(fetched)) => fetched,
        Some(Err(_)) if mutation!(SupplierPanicHangs) => std::future::pending().await,
        Some(Err(panicked)) => Err(panicked.into_error(ErrorKind::Authentication, name)),
        None => {
            let what = format!("timed out after {limit:?} waiting for the credentials");
            Err(Error::local(ErrorKind::Authentication, what).with_retriable(true))
        }
    }
}
