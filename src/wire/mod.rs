//! Bytes to frames and back. No state over frames, no I/O.
pub mod error;
pub(crate) mod proto;
