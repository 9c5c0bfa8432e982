//! Scenarios over the embedded broker's machine: no socket, virtual time; the last file has the sockets.
#![cfg(feature = "broker")]

mod captured;
mod consuming;
mod producing;
mod sockets;
mod support;
