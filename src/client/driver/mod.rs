//! The tasks of a client: one [`SupervisorDriver`], and one [`ConnectionDriver`](connection::ConnectionDriver) for each connection.
//!
//! They carry out what the machines decide and decide nothing. Both are written as one `poll`, over the timers and tasks
//! of a [`Runtime`](super::runtime::Runtime) and the sockets of a [`Dialer`](super::Dialer).

mod connection;
mod read_buffer;
mod supervisor;

pub(crate) use supervisor::{DialConfig, SupervisorDriver};
