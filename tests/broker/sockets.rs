//! The same broker behind real sockets: raw frames over TCP and in memory, and a stop that leaves nothing.

use std::time::Duration;

use bytes::BytesMut;
use pulsar_native::broker::{EmbeddedBroker, Rule};
use pulsar_native::pb::command_subscribe::SubType;
use pulsar_native::pb::{self, ServerError};
use pulsar_native::wire::entry::put_entry;
use pulsar_native::wire::metadata::MetadataFields;
use pulsar_native::wire::{Command, Frame, Limits, SendHead, cut, frames, put_flow, put_ping, put_send_head};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{TOPIC, connect_command, producer_command, subscribe_command};

/// A client that writes frames and reads them one by one.
struct Raw<S> {
    stream: S,
    rx: BytesMut,
    frames: std::collections::VecDeque<Frame>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    fn new(stream: S) -> Self {
        Self { stream, rx: BytesMut::new(), frames: Default::default() }
    }

    async fn send(&mut self, command: impl Into<Command>) {
        let mut bytes = BytesMut::new();
        command.into().encode_frame(&mut bytes);
        self.stream.write_all(&bytes).await.expect("write");
    }

    /// The next frame; `None` once the broker has closed.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame);
            }
            if self.stream.read_buf(&mut self.rx).await.unwrap_or(0) == 0 {
                return None;
            }
            if let Some(run) = cut(&mut self.rx, &Limits::default()).expect("sound lengths") {
                self.frames.extend(frames(run).map(|frame| frame.expect("sound frame")));
            }
        }
    }

    async fn command(&mut self) -> Command {
        match self.next().await {
            Some(Frame::Other(command)) => command,
            other => panic!("not a command: {other:?}"),
        }
    }

    /// Handshake, LOOKUP, PRODUCER, SUBSCRIBE, FLOW, one SEND; returns the payload part of the MESSAGE.
    async fn round_trip(&mut self, connect: pb::CommandConnect) -> bytes::Bytes {
        self.send(connect).await;
        assert!(matches!(self.command().await, Command::Connected(_)));
        self.send(pb::CommandLookupTopic { topic: TOPIC.to_owned(), request_id: 1, ..Default::default() }).await;
        assert!(matches!(self.command().await, Command::LookupResponse(_)));
        self.send(producer_command(2, 1, TOPIC)).await;
        assert!(matches!(self.command().await, Command::ProducerSuccess(_)));
        self.send(subscribe_command(3, 1, SubType::Exclusive)).await;
        assert!(matches!(self.command().await, Command::Success(_)));
        let mut bytes = BytesMut::new();
        put_flow(&mut bytes, 1, 10);
        let mut entry = BytesMut::new();
        let metadata = MetadataFields { producer_name: "p", sequence_id: 0, publish_time_ms: 1, ..Default::default() };
        put_entry(&mut entry, &metadata, b"hello");
        put_send_head(&mut bytes, &SendHead::new(1, 0), entry.len());
        bytes.extend_from_slice(&entry);
        self.stream.write_all(&bytes).await.expect("write");
        assert!(matches!(self.next().await, Some(Frame::Receipt(receipt)) if receipt.entry_id == 0));
        match self.next().await {
            Some(Frame::Message { entry: delivered, .. }) => {
                assert_eq!(delivered, entry);
                delivered
            }
            other => panic!("no MESSAGE: {other:?}"),
        }
    }
}

#[tokio::test]
async fn one_message_over_tcp() {
    let broker = EmbeddedBroker::builder().token_secret_key("secret").start().await.expect("start");
    let mut client = Raw::new(TcpStream::connect(broker.address()).await.expect("connect"));
    let mut connect = connect_command(21);
    connect.auth_method_name = Some("token".to_owned());
    connect.auth_data = Some(broker.token("admin").into());
    client.round_trip(connect).await;
    assert_eq!(broker.stats(TOPIC).map(|stats| stats.msg_in_counter), Some(1));
    assert_eq!(broker.violations(), []);
    broker.stop().await;
    assert_eq!(client.next().await, None, "the socket is gone");
    assert!(TcpStream::connect(broker.address()).await.is_err(), "it still listens");
}

#[tokio::test]
async fn one_message_in_memory() {
    let broker = EmbeddedBroker::builder().start().await.expect("start");
    let mut client = Raw::new(broker.connect());
    client.round_trip(connect_command(21)).await;
    assert_eq!(broker.violations(), []);
}

#[tokio::test]
async fn a_bad_token_gets_an_error_before_the_close() {
    let broker = EmbeddedBroker::builder().token_secret_key("secret").start().await.expect("start");
    let mut client = Raw::new(TcpStream::connect(broker.address()).await.expect("connect"));
    client.send(connect_command(21)).await;
    match client.command().await {
        Command::Error(error) => assert_eq!(error.error(), ServerError::AuthenticationError),
        other => panic!("no ERROR: {other:?}"),
    }
    assert_eq!(client.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_ends_after_the_keep_alive() {
    let broker = EmbeddedBroker::builder().keep_alive_interval(Duration::from_secs(30)).start().await.expect("start");
    let started = tokio::time::Instant::now();
    let mut silent = Raw::new(broker.connect());
    assert_eq!(silent.next().await, None);
    assert_eq!(started.elapsed().as_secs(), 30, "no handshake within one interval");

    let started = tokio::time::Instant::now();
    let mut mute = Raw::new(broker.connect());
    mute.send(connect_command(21)).await;
    assert!(matches!(mute.command().await, Command::Connected(_)));
    assert!(matches!(mute.command().await, Command::Ping(_)));
    assert_eq!(mute.next().await, None, "the PING stayed unanswered");
    assert_eq!(started.elapsed().as_secs(), 60);
    let rules: Vec<_> = broker.violations().iter().map(|violation| violation.rule).collect();
    assert_eq!(rules, [Rule::PongMissing]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_its_responses_is_no_longer_read_from() {
    let broker = EmbeddedBroker::builder().start().await.expect("start");
    let mut client = broker.connect();
    let mut bytes = BytesMut::new();
    Command::from(connect_command(21)).encode_frame(&mut bytes);
    let mut pings = BytesMut::new();
    for _ in 0..10_000 {
        put_ping(&mut pings);
    }
    client.write_all(&bytes).await.expect("write");
    // Twenty times what the broker keeps for one connection; it stops reading long before the end.
    let mut written = 0;
    let flood = async {
        for _ in 0..600 {
            client.write_all(&pings).await.expect("write");
            written += pings.len();
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(2), flood).await.is_err(), "all was read");
    assert!(written < 12 * 1024 * 1024, "{written} bytes were taken");
    // What it had to say is still there, and reading goes on.
    let mut client = Raw::new(client);
    assert!(matches!(client.command().await, Command::Connected(_)));
    for _ in 0..10_000 {
        assert!(matches!(client.command().await, Command::Pong(_)));
    }
}

#[tokio::test]
async fn dropping_the_last_handle_ends_connections() {
    let broker = EmbeddedBroker::builder().start().await.expect("start");
    let address = broker.address();
    let mut client = Raw::new(broker.connect());
    let second = broker.clone();
    drop(broker);
    assert!(TcpStream::connect(address).await.is_ok(), "a handle is left");
    drop(second);
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn the_error_for_an_invalid_partitioned_topic_names_it() {
    for (topic, partitions, what) in [
        ("orders", 0, "persistent://public/default/orders cannot have 0 partitions, only 1 to 10000"),
        ("orders", 10_001, "persistent://public/default/orders cannot have 10001 partitions, only 1 to 10000"),
        ("orders-partition-1", 2, "persistent://public/default/orders-partition-1 is a partition"),
        ("no/topic", 2, "no/topic"),
    ] {
        let error = EmbeddedBroker::builder().partitioned_topic(topic, partitions).start().await.unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[tokio::test]
async fn the_error_for_an_address_in_use_names_it() {
    let first = EmbeddedBroker::builder().start().await.expect("a free port");
    let error = EmbeddedBroker::builder().listen(first.address()).start().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&first.address().to_string()), "{error}");
    first.stop().await;
}
