//! The machines of a producer and of a consumer, each alone: scripts under a virtual clock, without a socket.

#[path = "../common/mod.rs"]
mod common;

mod consumer;
mod generator;
mod producer;
