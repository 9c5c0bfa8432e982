//! A native Apache Pulsar client.
#![forbid(unsafe_code)]

pub mod wire;
