//! Scenarios over the embedded broker's machine: no socket, virtual time; the last file has the sockets.
#![cfg(feature = "broker")]

mod captured;
#[path = "../support/random.rs"]
mod choices;
mod consuming;
mod handshake;
mod key_shared;
mod producing;
mod random;
mod sockets;
mod strictness;
mod support;
mod topic_list;
