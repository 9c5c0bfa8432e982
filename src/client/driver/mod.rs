//! The tasks of a client: one [`SupervisorDriver`], and one [`ConnectionDriver`](connection::ConnectionDriver) for each
//! connection.
//!
//! They carry out what the machines decide. Each is one hand-written `poll`, over the timers and tasks of a
//! [`Runtime`](super::runtime::Runtime) and the sockets of a [`Dialer`](super::Dialer).

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use crate::machine::ReadyList;
use crate::machine::control::Input;

mod connection;
mod read_buffer;
mod supervisor;

pub(crate) use supervisor::{DialConfig, SupervisorDriver};

/// How handles and connections reach the supervisor.
#[derive(Clone)]
pub(crate) struct SupervisorHandle {
    /// Requests and reports to the supervisor.
    pub(crate) inputs: UnboundedSender<Input>,
    /// The supervisor's list, which serves an endpoint that is not attached to a connection.
    pub(crate) ready: Arc<ReadyList>,
}
