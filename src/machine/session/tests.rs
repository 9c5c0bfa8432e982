use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::schedule::QUANTUM_BYTES;
use super::*;
use crate::machine::Reply;
use crate::machine::producer::{Message, ProducerConfig};
use crate::pb;
use crate::wire::frame::{cut, frames};
use crate::wire::tx::TxBuf;

struct Harness {
    session: Session,
    now: Now,
    requests: Vec<Command>,
}

impl Harness {
    /// A session with a broker that said CONNECTED.
    fn new() -> Self {
        let now = Now { at: Instant::now(), wall_ms: 1_700_000_000_000 };
        let config = ConnectionConfig {
            address: "broker:6650".into(),
            tls: false,
            proxy_to_broker_url: None,
            client_version: "test".to_owned(),
            keep_alive_interval: Duration::from_secs(30),
            handshake_timeout: Duration::MAX,
            operation_timeout: Duration::from_secs(30),
        };
        let session = Session::new(config, AuthData::none(), ReadyList::new(), now);
        let mut harness = Self { session, now, requests: Vec::new() };
        let version = Some(crate::machine::connection::PROTOCOL_VERSION);
        harness.broker(pb::CommandConnected { protocol_version: version, ..Default::default() });
        harness
    }

    fn broker(&mut self, command: impl Into<Command>) {
        let mut bytes = BytesMut::new();
        command.into().encode_frame(&mut bytes);
        self.session.handle_read(&mut bytes, self.now, &mut Deferred::new()).expect("a good frame");
    }

    /// What the connection writes; how many bytes it wrote. Control commands are kept.
    fn transmit(&mut self) -> usize {
        let mut tx = TxBuf::new();
        self.session.poll_transmit(&mut tx, self.now, None, &mut Deferred::new()).expect("a good connection");
        let mut bytes = BytesMut::from(&tx.take_all()[..]);
        let written = bytes.len();
        let run = cut(&mut bytes, &Limits::default()).expect("we write whole frames");
        for frame in run.into_iter().flat_map(frames) {
            if let crate::wire::frame::Frame::Other(command) = frame.expect("we write good frames") {
                self.requests.push(command);
            }
        }
        written
    }

    /// The id of the last request.
    fn asked(&mut self) -> u64 {
        self.transmit();
        self.requests.last().and_then(Command::request_id).expect("a request")
    }

    fn open(&mut self, endpoint: &Arc<Endpoint<Producer>>, attempt: u64) -> u64 {
        let command = SessionCommand::Open(endpoint.clone(), Attempt(attempt));
        self.session.handle_command(command, self.now, &mut Deferred::new()).expect("it goes on");
        self.asked()
    }

    fn opened(&mut self, request_id: u64) {
        let name = "p".to_owned();
        self.broker(pb::CommandProducerSuccess { request_id, producer_name: name, ..Default::default() });
    }
}

/// A waker that counts how often it was woken.
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn producer(id: u64, now: Now) -> Arc<Endpoint<Producer>> {
    let config = ProducerConfig { batching: false, max_pending_messages: 100_000, ..ProducerConfig::default() };
    producer_of(id, config, now)
}

fn producer_of(id: u64, config: ProducerConfig, now: Now) -> Arc<Endpoint<Producer>> {
    let (created, _) = Reply::pair();
    let id = ProducerId(id);
    let producer = Producer::new(id, "persistent://a/b/t".into(), -1, Arc::new(config), created, now);
    Endpoint::new(EndpointId::Producer(id), producer, ReadyList::new())
}

fn push(endpoint: &Endpoint<Producer>, count: usize, now: Now) {
    for _ in 0..count {
        let message = Message::new(Bytes::from_static(&[7; 1000]));
        let pushed = endpoint.with(|producer| producer.push(message, None, || now));
        drop(pushed.expect("there is room"));
    }
}

#[test]
fn who_is_notified_often_is_served_no_more_than_others() {
    let mut harness = Harness::new();
    let (busy, quiet) = (producer(1, harness.now), producer(2, harness.now));
    for endpoint in [&busy, &quiet] {
        let request = harness.open(endpoint, 1);
        harness.opened(request);
        harness.transmit();
    }
    push(&quiet, 10_000, harness.now);
    push(&busy, 10_000, harness.now);
    for _ in 0..20 {
        // More comes for one of them before every call, while both have more than their quantum.
        push(&busy, 100, harness.now);
        let written = harness.transmit();
        assert!(
            harness.session.run_queue.len() <= 2,
            "two endpoints stand {} times in the run queue",
            harness.session.run_queue.len()
        );
        assert!(written < 2 * QUANTUM_BYTES + 10_000, "{written} bytes, of two endpoints");
    }
}

#[test]
fn a_late_answer_to_an_earlier_open_does_not_close_the_later_one() {
    let mut harness = Harness::new();
    let endpoint = producer(1, harness.now);
    let first = harness.open(&endpoint, 1);
    harness.broker(pb::CommandCloseProducer { producer_id: 1, ..Default::default() });
    let second = harness.open(&endpoint, 2);
    harness.opened(first);
    harness.opened(second);
    harness.transmit();
    assert!(endpoint.with(|producer| producer.is_attached()));
    let closed = harness.requests.iter().any(|command| matches!(command, Command::CloseProducer(_)));
    assert!(!closed, "the producer that is open was closed at the broker");
}

#[test]
fn an_open_without_a_waiter_is_closed_at_the_broker() {
    let mut harness = Harness::new();
    let endpoint = producer(1, harness.now);
    let first = harness.open(&endpoint, 1);
    harness.broker(pb::CommandCloseProducer { producer_id: 1, ..Default::default() });
    harness.opened(first);
    harness.transmit();
    assert!(harness.requests.iter().any(|command| matches!(command, Command::CloseProducer(_))));
}

#[test]
fn who_left_while_queued_and_came_back_is_served_once_at_a_time() {
    let mut harness = Harness::new();
    let endpoint = producer(1, harness.now);
    let request = harness.open(&endpoint, 1);
    harness.opened(request);
    push(&endpoint, 1_000, harness.now);
    assert!(harness.transmit() > QUANTUM_BYTES, "it has more than a quantum, so it stays in the run queue");
    harness.broker(pb::CommandCloseProducer { producer_id: 1, ..Default::default() });
    // All this while the peer takes nothing, so that the run queue stays as it is.
    let command = SessionCommand::Open(endpoint.clone(), Attempt(2));
    harness.session.handle_command(command, harness.now, &mut Deferred::new()).expect("it goes on");
    harness.opened(request + 1);
    harness.session.schedule_notified(None, false);
    harness.transmit();
    for _ in 0..10 {
        let written = harness.transmit();
        assert!(written < QUANTUM_BYTES + 10_000, "{written} bytes, of one endpoint");
        assert_eq!(harness.session.run_queue.len(), 1);
    }
}

#[test]
fn the_waker_stays_behind_although_all_that_was_notified_has_left() {
    let mut harness = Harness::new();
    let (stays, leaves) = (producer(1, harness.now), producer(2, harness.now));
    for endpoint in [&stays, &leaves] {
        let request = harness.open(endpoint, 1);
        harness.opened(request);
        harness.transmit();
    }
    push(&leaves, 1, harness.now);
    harness.broker(pb::CommandCloseProducer { producer_id: 2, ..Default::default() });
    let woken = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(woken.clone());
    harness.session.schedule_notified(Some(&waker), false);
    assert!(!harness.session.wants_transmit(&TxBuf::new()), "the task goes to sleep");
    push(&stays, 1, harness.now);
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
}

/// A batch that lingers gives the driver a deadline to note and nothing else.
#[test]
fn a_deadline_wakes_the_driver_only_if_it_would_sleep_beyond_it() {
    const LINGER: Duration = Duration::from_millis(10);
    let mut harness = Harness::new();
    let config = ProducerConfig { batching_max_messages: 2, batching_max_publish_delay: LINGER, ..Default::default() };
    let endpoint = producer_of(1, config, harness.now);
    let request = harness.open(&endpoint, 1);
    harness.opened(request);
    harness.transmit();
    let woken = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(woken.clone());
    let times = || woken.0.load(Ordering::SeqCst);
    let start = harness.now.at;

    harness.session.schedule_notified(Some(&waker), false);
    push(&endpoint, 1, harness.now);
    assert_eq!(times(), 1, "how long it sleeps is not known");
    push(&endpoint, 1, harness.now);
    assert!(harness.transmit() > 0, "the batch is full");

    harness.session.schedule_notified(Some(&waker), false);
    harness.session.sleeps_until(start + LINGER);
    push(&endpoint, 1, harness.now);
    assert_eq!(times(), 1, "it wakes in time by itself");
    push(&endpoint, 1, harness.now);
    assert_eq!(times(), 2, "the batch is full now");
    assert!(harness.transmit() > 0, "it is served once");
    assert_eq!(harness.transmit(), 0);

    harness.session.schedule_notified(Some(&waker), false);
    harness.session.sleeps_until(start + LINGER);
    push(&endpoint, 1, harness.now);
    harness.now.at += LINGER;
    assert!(harness.transmit() > 0, "its own timer has woken it");
    assert_eq!(times(), 2);

    harness.session.schedule_notified(Some(&waker), false);
    harness.session.sleeps_until(harness.now.at + LINGER + Duration::from_nanos(1));
    push(&endpoint, 1, harness.now);
    assert_eq!(times(), 3, "it would wake too late");
    harness.now.at += LINGER;
    assert!(harness.transmit() > 0);

    harness.session.schedule_notified(Some(&waker), false);
    harness.session.sleeps_until(harness.now.at);
    harness.session.schedule_notified(Some(&waker), false);
    push(&endpoint, 1, harness.now);
    assert_eq!(times(), 4, "it has taken what was there, and not said how long it sleeps now");
}

#[test]
fn a_send_ends_in_time_although_the_deadline_of_an_earlier_one_stood() {
    let mut harness = Harness::new();
    let start = harness.now;
    let endpoint = producer(1, harness.now);
    let request = harness.open(&endpoint, 1);
    harness.opened(request);
    let mut looks = 0;
    for second in 0..20 {
        harness.now.at = start.at + Duration::from_secs(second);
        push(&endpoint, 1, harness.now);
        harness.transmit();
        let receipt = pb::CommandSendReceipt { producer_id: 1, sequence_id: second, ..Default::default() };
        if second < 19 {
            harness.broker(receipt);
        }
    }
    let timeout = ProducerConfig::default().send_timeout;
    let overdue = harness.now.at + timeout;
    while endpoint.with(|producer| producer.stats().pending_messages) > 0 {
        let due = harness.session.deadlines.next().expect("the endpoint is looked at again").at;
        assert!(due <= overdue, "{looks} looks, and the next is too late");
        harness.now.at = due;
        harness.session.connection.handle_data_frame("SEND_RECEIPT").expect("it is up");
        harness.session.handle_deadline(harness.now, &mut Deferred::new()).expect("a good connection");
        looks += 1;
    }
    assert_eq!(harness.now.at, overdue);
    // One of them for the report of a message that waits for its receipt.
    assert!(looks <= 4, "{looks} looks at one deadline");
}

#[test]
fn who_is_still_queued_when_the_peer_stops_reading_has_its_deadline() {
    let mut harness = Harness::new();
    let endpoints = [1, 2, 3, 4, 5, 6].map(|id| producer(id, harness.now));
    for endpoint in &endpoints {
        let request = harness.open(endpoint, 1);
        harness.opened(request);
        harness.transmit();
    }
    // More than the connection holds back, so that some are queued and are not served.
    for endpoint in &endpoints {
        push(endpoint, 100, harness.now);
    }
    let mut tx = TxBuf::new();
    harness.session.poll_transmit(&mut tx, harness.now, None, &mut Deferred::new()).expect("a good connection");
    assert!(!harness.session.run_queue.is_empty(), "{} bytes went out at once", tx.len());
    for endpoint in &endpoints {
        let due = endpoint.with(|producer| producer.poll_deadline());
        assert!(due.is_some_and(|due| due.at > harness.now.at), "a send has no deadline");
    }
}
