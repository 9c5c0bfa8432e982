//! Bytes to frames and back. No state over frames, no I/O.
pub mod ack_set;
pub mod batch;
pub mod compress;
pub mod entry;
pub mod error;
pub mod metadata;
mod new_metadata;
pub(crate) mod proto;
