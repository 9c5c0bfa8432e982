//! What the broker does on each command of a client.

pub(crate) mod ack;
pub(crate) mod consumer;
pub(crate) mod handshake;
pub(crate) mod lookup;
pub(crate) mod position;
pub(crate) mod producer;
pub(crate) mod schema;
pub(crate) mod send;
pub(crate) mod takeover;
pub(crate) mod topic_list;
