//! What is told of a client as it happens: spans and events of `tracing`. Without that feature all of it is empty.
//!
//! It hears what the supervisor's driver hears ([`Notice`](crate::machine::supervisor::notice::Notice)s, inputs, actions) and
//! changes nothing. Nothing here is called for a message.

#![cfg_attr(
    not(feature = "tracing"),
    expect(unused_variables, clippy::unused_self, reason = "there is no one to tell")
)]

use std::time::Duration;

use crate::machine::Now;
use crate::machine::control::{Action, ConnectionId, Input};
use crate::machine::supervisor::Supervisor;

#[cfg(feature = "tracing")]
mod trace;

/// Hears what happens to one client. Part of its driver.
pub(crate) struct Observer {
    #[cfg(feature = "tracing")]
    trace: trace::Trace,
}

impl Observer {
    /// Of a client that is made now.
    pub(crate) fn new(service_url: &str, now: Now) -> Self {
        Self {
            #[cfg(feature = "tracing")]
            trace: trace::Trace::new(service_url, now),
        }
    }

    /// Before the first input.
    pub(crate) fn start(&self, supervisor: &mut Supervisor) {
        #[cfg(feature = "tracing")]
        supervisor.keep_notices();
    }

    /// Before the supervisor gets this.
    pub(crate) fn on_input(&mut self, input: &Input, now: Now) {
        #[cfg(feature = "tracing")]
        self.trace.on_input(input, now);
    }

    /// Collects what has happened. Before the actions of that are carried out.
    pub(crate) fn on_notices(&mut self, supervisor: &mut Supervisor, now: Now) {
        #[cfg(feature = "tracing")]
        for notice in supervisor.take_notices() {
            self.trace.on_notice(&notice, now);
        }
    }

    /// Before this is carried out.
    pub(crate) fn on_action(&mut self, action: &Action, now: Now) {
        #[cfg(feature = "tracing")]
        self.trace.on_action(action, now);
    }

    /// For the task that dials this connection.
    pub(crate) fn of_dial(&self, connection: ConnectionId) -> DialObserver {
        DialObserver {
            #[cfg(feature = "tracing")]
            trace: self.trace.of_dial(connection),
        }
    }

    /// The client is closed, and nothing of it is left.
    pub(crate) fn on_closed(&mut self, now: Now) {
        #[cfg(feature = "tracing")]
        self.trace.on_closed(now);
    }
}

/// Hears what happens to one dial. Part of its task.
pub(crate) struct DialObserver {
    #[cfg(feature = "tracing")]
    trace: trace::DialTrace,
}

impl DialObserver {
    /// The socket is there, with TLS if that is used; the handshake of the protocol follows.
    pub(crate) fn on_dialed(&self, took: Duration) {
        #[cfg(feature = "tracing")]
        self.trace.on_dialed(took);
    }
}
