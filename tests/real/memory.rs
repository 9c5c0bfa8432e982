//! The memory limit with the messages of many producers, as large as a broker takes them in practice.

use crate::broker::Real;
use crate::runner::Test;
use crate::suite::*;

pub const TESTS: &[Test] =
    &[("memory::a_hundred_producers_of_large_messages", |real| Box::pin(a_hundred_producers_of_large_messages(real)))];

const MIB: usize = 1024 * 1024;
const PRODUCERS: usize = 100;
const LIMIT: usize = 8 * MIB;

/// What is pending in all of them together never exceeds the limit, at whatever moment one looks.
async fn a_hundred_producers_of_large_messages(real: Real) {
    let target = real.target();
    let client = within("the connection", target.builder().memory_limit(LIMIT).connect()).await.expect("a client");
    let topic = target.topic("large");
    let mut producers = Vec::new();
    for _ in 0..PRODUCERS {
        producers.push(created(client.producer(&topic)).await);
    }
    let sends = producers.iter().cloned().map(|producer| {
        tokio::spawn(async move {
            for _ in 0..2 {
                within("a receipt", producer.send(vec![7; MIB])).await.expect("stored");
            }
        })
    });
    let sends: Vec<_> = sends.collect();
    let mut most = 0;
    while sends.iter().any(|send| !send.is_finished()) {
        let usage = client.memory_usage();
        assert!(usage.used <= LIMIT, "{usage}");
        most = most.max(usage.used);
        tokio::task::yield_now().await;
    }
    for send in sends {
        send.await.expect("no panic");
    }
    assert!(most > LIMIT / 2, "{most} bytes were in use");
    let pending: usize = producers.iter().map(|producer| producer.stats().pending_bytes).sum();
    assert_eq!((pending, client.memory_usage().used), (0, 0));
}
