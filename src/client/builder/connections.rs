//! Options of a client about its connections.

use std::time::Duration;

use super::ClientBuilder;
use crate::error::{Error, ErrorKind, Result};
use crate::machine::supervisor::SupervisorConfig;
use crate::machine::supervisor::service_hosts::Quarantine;

/// The most connections to one broker: more are a mistake.
const CONNECTIONS_PER_BROKER_MAX: u32 = 1024;

/// How many connections there are, for how long they are kept, and for how long a host is not used after a failure.
#[derive(Debug, Clone)]
pub(super) struct ConnectionOptions {
    per_broker: u32,
    max_idle: Duration,
    quarantine: Quarantine,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self { per_broker: 1, max_idle: Duration::from_secs(60), quarantine: Quarantine::default() }
    }
}

impl ConnectionOptions {
    pub(super) fn configure(&self, config: &mut SupervisorConfig) {
        config.connections_per_broker = self.per_broker;
        config.idle_connection_max = self.max_idle;
        config.quarantine = self.quarantine;
    }

    /// # Errors
    /// [`ErrorKind::InvalidArgument`]: an option is out of its range.
    pub(super) fn validate(&self) -> Result<()> {
        let Quarantine { initial, max } = self.quarantine;
        let what = if !(1..=CONNECTIONS_PER_BROKER_MAX).contains(&self.per_broker) {
            format!("connections_per_broker must be from 1 to {CONNECTIONS_PER_BROKER_MAX}")
        } else if self.max_idle.is_zero() {
            "connection_max_idle must be above zero".to_owned()
        } else if max < initial {
            format!("service_url_quarantine: the longest time must be at least {initial:?}, the first one")
        } else {
            return Ok(());
        };
        Err(Error::local(ErrorKind::InvalidArgument, what))
    }
}

/// Connections.
impl ClientBuilder {
    /// How many connections to one broker its producers and consumers are spread over, each of them on one. More than one
    /// is of use where one connection does not carry what the network does. Default: 1. From 1 to 1024.
    #[doc(alias = "connectionsPerBroker")]
    pub fn connections_per_broker(mut self, connections: u32) -> Self {
        self.connections.per_broker = connections;
        self
    }

    /// How long a connection is kept that no producer, consumer or request uses. Default: 60 s (the Java client: 25
    /// minutes).
    #[doc(alias = "connectionMaxIdleSeconds")]
    pub fn connection_max_idle(mut self, time: Duration) -> Self {
        self.connections.max_idle = time;
        self
    }

    /// For how long a host of the service URL is set aside once it cannot be reached, or a connection to it is lost:
    /// `initial` the first time, twice as long after each further failure, `max` at most; a connection that comes up ends
    /// that. Where all hosts are set aside, they are tried in turn all the same. Zero: none is set aside. Default: a minute, up
    /// to a day, as in the Java client since 4.1.
    #[doc(alias = "serviceUrlQuarantineInitDuration")]
    #[doc(alias = "serviceUrlQuarantineMaxDuration")]
    pub fn service_url_quarantine(mut self, initial: Duration, max: Duration) -> Self {
        self.connections.quarantine = Quarantine { initial, max };
        self
    }
}
