//! What a running command says on stderr where that is no terminal.

use std::net::SocketAddr;

use tokio::io::Lines;
use tokio::process::ChildStderr;

use super::*;

/// A broker at this address, which is free again after [`EmbeddedBroker::stop`].
async fn broker_at(address: SocketAddr) -> EmbeddedBroker {
    EmbeddedBroker::builder().listen(address).start().await.expect("the address is free")
}

/// An address that was free a moment ago.
fn unused_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}

struct Stderr {
    lines: Lines<BufReader<ChildStderr>>,
    seen: Vec<String>,
}

impl Stderr {
    fn of(child: &mut Child) -> Self {
        Self { lines: BufReader::new(child.stderr.take().expect("piped")).lines(), seen: Vec::new() }
    }

    /// Reads up to a line that has all of these words.
    async fn until(&mut self, words: &[&str]) -> String {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            let line = tokio::time::timeout_at(deadline, self.lines.next_line()).await;
            let line = line.unwrap_or_else(|_| panic!("waited for {words:?} after {:#?}", self.seen));
            let line = line.expect("UTF-8").unwrap_or_else(|| panic!("ended without {words:?}: {:#?}", self.seen));
            self.seen.push(line.clone());
            if words.iter().all(|word| line.contains(word)) {
                return line;
            }
        }
    }

    /// Reads up to the end.
    async fn rest(&mut self) -> &[String] {
        while let Some(line) = self.lines.next_line().await.expect("UTF-8") {
            self.seen.push(line);
        }
        &self.seen
    }
}

/// A consumer, a producer and a measurement while their broker dies and returns.
#[tokio::test]
async fn a_broker_that_dies_and_returns_is_told_in_plain_lines() {
    let broker = EmbeddedBroker::builder().start().await.expect("a broker");
    let (url, address) = (broker.url(), broker.address());
    let mut consume = start(&format!("consume {url} --topic {TOPIC} --subscription s --messages 2"));
    let mut produce = start(&format!("produce {url} --topic {TOPIC}"));
    let mut perf = start(&format!("perf produce {url} --topic {TOPIC}-perf --messages 1000000 --rate 50"));
    let mut stdin = produce.stdin.take().expect("piped");
    stdin.write_all(b"before\n").await.expect("written");
    let mut stdout = BufReader::new(consume.stdout.take().expect("piped")).lines();
    let before = stdout.next_line().await.expect("UTF-8").expect("a message");
    let mut all = [&mut consume, &mut produce, &mut perf].map(Stderr::of);
    while broker.stats(&format!("{TOPIC}-perf")).is_none_or(|stats| stats.msg_in_counter == 0) {
        tokio::task::yield_now().await;
    }
    broker.stop().await;
    for stderr in &mut all {
        stderr.until(&["not attached: ", "attempt 1 "]).await;
        stderr.until(&["not attached: ", "refused", &address.to_string(), "attempt 2 in "]).await;
    }
    let _broker = broker_at(address).await;
    for stderr in &mut all {
        let again = stderr.until(&[&format!("attached to {address} again after "), " s"]).await;
        assert!(!again.contains("not attached"), "{again}");
    }
    stdin.write_all(b"after\n").await.expect("written");
    drop(stdin);
    let after = stdout.next_line().await.expect("UTF-8").expect("a message");
    assert!(before.ends_with(" before") && after.ends_with(" after"), "{before}, {after}");
    assert_eq!(stdout.next_line().await.expect("UTF-8"), None, "stdout has messages alone");
    let figures = all[2].until(&["msg/s", "MB/s", "pending", "p50 ", " ms  p99 "]).await;
    drop(perf);
    assert!(consume.wait().await.expect("it ends").success() && produce.wait().await.expect("it ends").success());
    for stderr in &mut all[..2] {
        let is_state = |line: &String| line.starts_with("not attached: ") || line.starts_with("attached to ");
        assert!(stderr.rest().await.iter().all(is_state), "changes alone, no {figures}: {:#?}", stderr.seen);
        let told = stderr.seen.iter().filter(|line| line.starts_with("attached to ")).count();
        assert_eq!(told, 1, "{:#?}", stderr.seen);
    }
}

#[tokio::test]
async fn a_broker_that_is_not_there_yet_is_told_once_for_each_reason() {
    let address = unused_address();
    let mut child = start(&format!("produce pulsar://{address} --topic {TOPIC} one"));
    let mut stderr = Stderr::of(&mut child);
    stderr.until(&["not connected: ", "refused", &address.to_string()]).await;
    let _broker = broker_at(address).await;
    assert!(child.wait().await.expect("it ends").success(), "{:#?}", stderr.seen);
    assert_eq!(stderr.rest().await.len(), 1, "{:#?}", stderr.seen);
}

#[tokio::test]
async fn a_consumer_that_gets_nothing_says_why_once() {
    let broker = EmbeddedBroker::builder().start().await.expect("a broker");
    let url = broker.url();
    let mut child = start(&format!("consume {url} --topic {TOPIC} --subscription s --messages 2"));
    let mut stderr = Stderr::of(&mut child);
    let send = || async { run(&format!("produce {url} --topic {TOPIC} x")).await };
    let why = stderr.until(&["no message for "]).await;
    assert!(why.ends_with(" s: no backlog: everything is acknowledged"), "{why}");
    send().await;
    send().await;
    assert!(child.wait().await.expect("it ends").success());
    assert_eq!(stderr.rest().await, [why]);
}

#[tokio::test]
async fn verbose_tells_connections_and_events() {
    let broker = EmbeddedBroker::builder().start().await.expect("a broker");
    let (url, address) = (broker.url(), broker.address());
    run(&format!("produce {url} --topic {TOPIC} one")).await;
    let words = format!("{url} --topic {TOPIC} --subscription s --subscription-type failover --messages 1");
    let quiet = end(start(&format!("consume {words}"))).await;
    assert_quiet_success(&quiet);
    run(&format!("produce {url} --topic {TOPIC} two")).await;
    let output = end(start(&format!("consume -v {words}"))).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    for line in [format!("connection to {address}: connected ("), format!("\nattached to {address}\n")] {
        assert!(output.status.success() && stderr.contains(&line), "{line} in {stderr}");
    }
    let output = end(start(&format!("produce -vv {url} --topic {TOPIC} three"))).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if cfg!(feature = "tracing") {
        let line = format!("DEBUG endpoint: opening endpoint=producer 0 topic={TOPIC} broker={address}\n");
        assert!(output.status.success() && stderr.contains(&line), "{line} in {stderr}");
    } else {
        assert_eq!((output.status.code(), stderr.contains("feature `tracing`")), (Some(2), true), "{stderr}");
    }
}

/// What is there and is not printed has to be told.
#[tokio::test]
async fn a_topic_that_ends_is_told() {
    let broker = EmbeddedBroker::builder().start().await.expect("a broker");
    let words = format!("consume {} --topic {TOPIC} --subscription s -v", broker.url());
    let mut child = start(&words);
    let mut stderr = Stderr::of(&mut child);
    stderr.until(&["attached to "]).await;
    broker.terminate(TOPIC);
    stderr.until(&[TOPIC, " was terminated, and all of it is acknowledged"]).await;
}
