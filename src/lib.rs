//! A native Apache Pulsar client.
#![forbid(unsafe_code)]

pub mod error;
pub mod hash;
pub mod id;
pub mod machine;
pub mod pb;
pub mod topic;
pub mod wire;

pub use error::{Error, ErrorKind, Origin, SendError, ServerCode, ServerError};
