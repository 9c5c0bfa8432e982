//! What a supervisor tells about: connections and endpoints that come, go and are tried again.
//!
//! A notice changes nothing. [`ConnectionStates`](super::connection_states::ConnectionStates) is kept from those about
//! connections, and all of them are for traces and metrics.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::machine::EndpointId;
use crate::machine::control::ConnectionId;

/// What has happened, at the time of the input that it is collected after.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// About a connection.
    Connection {
        /// Which.
        connection: ConnectionId,
        /// `host:port`, with the proxy's if there is one.
        broker: Arc<str>,
        /// What has happened to it.
        event: ConnectionNotice,
    },
    /// The client uses another cluster from now on.
    ClusterSwitched {
        /// Its service URL.
        service_url: Arc<str>,
    },
    /// About a producer, consumer or watcher.
    Endpoint {
        /// Which.
        endpoint: EndpointId,
        /// Its topic or partition; of a watcher, its namespace and pattern.
        topic: Arc<str>,
        /// What has happened to it.
        event: EndpointNotice,
    },
}

/// What has happened to a connection.
#[derive(Debug, Clone, PartialEq)]
pub enum ConnectionNotice {
    /// It is needed: its credentials are fetched, then it is dialed. After a failure this waits for a moment first.
    Connecting,
    /// The handshake is done.
    Connected {
        /// The broker's name for its software (`CommandConnected.server_version`).
        server_version: Arc<str>,
        /// The protocol version that the broker speaks (`CommandConnected.protocol_version`).
        protocol_version: i32,
    },
    /// The broker asked for fresh credentials (AUTH_CHALLENGE).
    Challenged,
    /// It was lost, or could not be made.
    Failed {
        /// Why.
        error: Error,
        /// Whether it was usable before.
        was_up: bool,
        /// How many producers, consumers and watchers were attached to it or waited for it.
        endpoints: usize,
    },
    /// This client has closed it: it was idle, or the client is closed.
    Closed,
}

/// What has happened to an endpoint.
#[derive(Debug, Clone, PartialEq)]
pub enum EndpointNotice {
    /// A broker was asked where its topic is (LOOKUP).
    LookupSent,
    /// The lookup has named the broker that has the topic, or a broker to ask next.
    LookedUp {
        /// Whether another broker is asked next.
        is_redirect: bool,
    },
    /// A broker was asked to open it (PRODUCER, SUBSCRIBE, WATCH_TOPIC_LIST).
    Opening {
        /// The broker.
        broker: Arc<str>,
    },
    /// A broker has opened it.
    Attached {
        /// The broker.
        broker: Arc<str>,
        /// The number of the attempt: 1 if the first one has succeeded.
        attempt: u32,
    },
    /// It was attached, and is no more.
    Detached {
        /// Why.
        error: Error,
    },
    /// Its topic has migrated to another cluster (TOPIC_MIGRATED), where it is looked up from now on.
    Migrated {
        /// The service URL of that cluster.
        service_url: Arc<str>,
    },
    /// An attempt to attach it has failed.
    AttachFailed {
        /// Why.
        error: Error,
        /// The number of the attempt that has failed.
        attempt: u32,
        /// When the next attempt is made, from now on; `None` is beyond what the clock can express.
        retry_in: Option<Duration>,
    },
    /// It has ended.
    Finished {
        /// Why; `None` if the application closed it.
        error: Option<Error>,
    },
}
