//! The machines of a producer, of a consumer and of a watcher, each alone: scripts under a virtual clock, without a socket.

#[path = "../common/mod.rs"]
mod common;

mod consumer;
mod generator;
mod producer;
mod topic_list;
