//! Scenarios over the embedded broker's machine: no socket, virtual time; `sockets.rs` alone has the sockets.

#[path = "../common/mod.rs"]
mod common;

#[cfg(all(feature = "encryption", feature = "zlib"))]
mod book;
mod captured;
mod compaction;
mod consuming;
mod handshake;
mod invalid_input;
#[cfg(feature = "tap")]
mod judged;
mod key_shared;
mod like;
mod policies;
mod producing;
mod random;
mod rates;
mod roles;
mod schemas;
mod sockets;
mod support;
mod topic_list;
