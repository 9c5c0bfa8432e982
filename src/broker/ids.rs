//! How the broker names a connection, and a producer, consumer or request on it.

use std::fmt;

/// The request id of an error or a close that is no response to a request.
pub(crate) const NO_REQUEST: u64 = u64::MAX;

/// A connection of this broker, numbered from 1 in order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A producer: its connection, and the `producer_id` it goes by there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProducerKey {
    pub(crate) conn: ConnId,
    pub(crate) id: u64,
}

/// A consumer: its connection, and the `consumer_id` it goes by there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConsumerKey {
    pub(crate) conn: ConnId,
    pub(crate) id: u64,
}
