//! What is told of a client: spans and events of `tracing`, and metrics for a recorder of `metrics`. Without those features
//! all of it is empty.
//!
//! It hears what the supervisor's driver hears ([`Notice`](crate::machine::supervisor::notice::Notice)s, inputs, actions) and
//! changes nothing. Nothing here is called for a message.

#![cfg_attr(
    not(all(feature = "tracing", feature = "metrics")),
    allow(unused_variables, dead_code, clippy::unused_self, reason = "there is no one to tell")
)]

use std::sync::Arc;
use std::time::Duration;

use crate::machine::control::{Action, ConnectionId, Input};
use crate::machine::supervisor::Supervisor;
use crate::machine::{Deadline, Now};

#[cfg(feature = "metrics")]
mod metrics;
#[cfg(feature = "tracing")]
mod trace;

#[cfg(feature = "metrics")]
pub(crate) use self::metrics::MetricsConfig;

/// PEM files have changed and are not usable; `why` names the file.
pub(crate) fn tls_files_unusable(why: &str) {
    #[cfg(feature = "tracing")]
    trace::tls_files_unusable(why);
}

/// The provider of service URLs names no cluster that can be used.
pub(crate) fn no_cluster_to_use(why: &str) {
    #[cfg(feature = "tracing")]
    trace::no_cluster_to_use(why);
}

/// What is told, and how.
#[derive(Debug, Clone)]
pub(crate) struct ObserverConfig {
    pub(crate) service_url: Arc<str>,
    /// A host of the service URL, not of this machine, that gets credentials over plain HTTP.
    pub(crate) plain_http_host: Option<Arc<str>>,
    #[cfg(feature = "metrics")]
    pub(crate) metrics: MetricsConfig,
    #[cfg(feature = "metrics")]
    pub(crate) memory: Option<Arc<crate::machine::memory::MemoryBudget>>,
}

/// Hears what happens to one client. Part of its driver.
pub(crate) struct Observer {
    #[cfg(feature = "tracing")]
    trace: trace::Trace,
    #[cfg(feature = "metrics")]
    metrics: self::metrics::Metrics,
}

impl Observer {
    /// Of a client that is made now.
    pub(crate) fn new(config: &ObserverConfig, now: Now) -> Self {
        Self {
            #[cfg(feature = "tracing")]
            trace: trace::Trace::new(&config.service_url, config.plain_http_host.as_deref(), now),
            #[cfg(feature = "metrics")]
            metrics: self::metrics::Metrics::new(&config.service_url, config.metrics, config.memory.clone(), now),
        }
    }

    /// Before the first input.
    pub(crate) fn start(&self, supervisor: &mut Supervisor) {
        #[cfg(any(feature = "tracing", feature = "metrics"))]
        supervisor.keep_notices();
    }

    /// Before the supervisor gets this.
    pub(crate) fn on_input(&mut self, input: &Input, now: Now) {
        #[cfg(feature = "tracing")]
        self.trace.on_input(input, now);
        #[cfg(feature = "metrics")]
        self.metrics.on_input(input);
    }

    /// Collects what has happened. Before the actions of that are carried out.
    pub(crate) fn on_notices(&mut self, supervisor: &mut Supervisor, now: Now) {
        #[cfg(any(feature = "tracing", feature = "metrics"))]
        for notice in supervisor.take_notices() {
            #[cfg(feature = "tracing")]
            self.trace.on_notice(&notice, now);
            #[cfg(feature = "metrics")]
            self.metrics.on_notice(&notice, now);
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
            #[cfg(feature = "metrics")]
            is_dialed: self.metrics.is_dialed(connection),
        }
    }

    /// When there is something to tell that nothing has to happen for.
    pub(crate) fn poll_deadline(&self) -> Option<Deadline> {
        #[cfg(feature = "metrics")]
        return self.metrics.poll_deadline();
        #[cfg(not(feature = "metrics"))]
        None
    }

    /// Tells what is due.
    pub(crate) fn handle_deadline(&mut self, now: Now) {
        #[cfg(feature = "metrics")]
        self.metrics.handle_deadline(now);
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
    #[cfg(feature = "metrics")]
    is_dialed: Arc<std::sync::atomic::AtomicBool>,
}

impl DialObserver {
    /// The socket is there, with TLS if that is used; the handshake of the protocol follows.
    pub(crate) fn on_dialed(&self, took: Duration) {
        #[cfg(feature = "tracing")]
        self.trace.on_dialed(took);
        #[cfg(feature = "metrics")]
        self.is_dialed.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}
