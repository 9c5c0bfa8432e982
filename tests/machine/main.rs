//! The machines of a producer, of a consumer and of a watcher, each alone: scripts under a virtual clock, without a socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

#[path = "../common/mod.rs"]
mod common;

mod consumer;
mod generator;
mod producer;
mod topic_list;

/// A waker that counts how often it was woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
