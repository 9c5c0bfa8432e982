//! Clients without a socket on a broker with virtual time: bytes go in and out as they would on a connection.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use pulsar_native::broker::machine::{Broker, ConnId};
use pulsar_native::broker::{BrokerConfig, Rule};
use pulsar_native::machine::Now;
use pulsar_native::pb::{self, MessageIdData, command_ack::AckType, command_subscribe::SubType};
use pulsar_native::wire::entry::put_entry;
use pulsar_native::wire::metadata::{MetadataFields, SingleFields};
use pulsar_native::wire::{Command, Frame, MessageHead, Receipt, SendHead, TxBuf, frames, put_record, put_send_head};

pub(crate) const URL: &str = "pulsar://127.0.0.1:6650";
pub(crate) const TOPIC: &str = "persistent://public/default/t";

/// A broker without sockets, with a clock of its own.
pub(crate) struct BrokerHarness {
    pub(crate) broker: Broker,
    pub(crate) now: Now,
    next_request: u64,
    #[cfg(feature = "tap")]
    wire: crate::judged::Wire,
    #[cfg(feature = "tap")]
    started: Instant,
}

/// What goes over the wire is looked at by the inspector of captured traffic too.
#[cfg(feature = "tap")]
impl BrokerHarness {
    fn tell(&mut self, conn: ConnId, direction: pulsar_native::capture::Direction, bytes: &[u8]) {
        let since_start = self.now.at.saturating_duration_since(self.started);
        self.wire.push(conn, since_start, direction, Bytes::copy_from_slice(bytes));
    }
}

#[cfg(feature = "tap")]
impl Drop for BrokerHarness {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.broken();
        }
    }
}

impl BrokerHarness {
    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    pub(crate) fn with(change: impl FnOnce(&mut BrokerConfig)) -> Self {
        let mut config = BrokerConfig::default();
        change(&mut config);
        let now = Now { at: Instant::now(), wall_ms: 1_700_000_000_000 };
        Self {
            broker: Broker::new(config, URL, now),
            now,
            next_request: 100,
            #[cfg(feature = "tap")]
            wire: crate::judged::Wire::new(),
            #[cfg(feature = "tap")]
            started: now.at,
        }
    }

    /// Moves the clock, deadline by deadline.
    pub(crate) fn advance(&mut self, by: Duration) {
        let end = Now { at: self.now.at + by, wall_ms: self.now.wall_ms + by.as_millis() as u64 };
        while let Some(due) = self.broker.poll_deadline().filter(|due| due.at <= end.at) {
            let passed = due.at.saturating_duration_since(self.now.at);
            let wall_ms = self.now.wall_ms + passed.as_millis() as u64;
            self.now = Now { at: self.now.at.max(due.at), wall_ms };
            self.broker.handle_deadline(self.now);
        }
        self.now = end;
        self.broker.handle_deadline(end);
    }

    /// A connection before its handshake.
    pub(crate) fn dial(&mut self) -> ConnId {
        self.broker.connect(self.now)
    }

    /// A connection of protocol version 21 that has done its handshake.
    pub(crate) fn connect(&mut self) -> ConnId {
        self.connect_as(connect_command(21))
    }

    pub(crate) fn connect_as(&mut self, connect: pb::CommandConnect) -> ConnId {
        let conn = self.dial();
        self.send(conn, connect);
        match self.take(conn).as_slice() {
            [Frame::Other(Command::Connected(_))] => conn,
            other => panic!("no CONNECTED but {other:?}"),
        }
    }

    pub(crate) fn send(&mut self, conn: ConnId, command: impl Into<Command>) {
        let mut bytes = BytesMut::new();
        command.into().encode_frame(&mut bytes);
        self.send_bytes(conn, &bytes);
    }

    pub(crate) fn send_bytes(&mut self, conn: ConnId, bytes: &[u8]) {
        self.receive(conn, &mut BytesMut::new(), bytes);
    }

    /// `rx` has what the broker left of the bytes before.
    pub(crate) fn receive(&mut self, conn: ConnId, rx: &mut BytesMut, bytes: &[u8]) {
        #[cfg(feature = "tap")]
        if !self.broker.closing(conn) {
            self.tell(conn, pulsar_native::capture::Direction::ToBroker, bytes);
        }
        rx.extend_from_slice(bytes);
        self.broker.receive(conn, rx, self.now);
    }

    /// All the broker has written for this connection.
    pub(crate) fn take_bytes(&mut self, conn: ConnId) -> Bytes {
        let mut out = TxBuf::new();
        self.broker.poll_transmit(conn, &mut out);
        let bytes = out.take_all();
        #[cfg(feature = "tap")]
        self.tell(conn, pulsar_native::capture::Direction::ToClient, &bytes);
        bytes
    }

    pub(crate) fn take(&mut self, conn: ConnId) -> Vec<Frame> {
        frames(self.take_bytes(conn)).map(|frame| frame.expect("the broker writes sound frames")).collect()
    }

    /// The only frame written, a command.
    pub(crate) fn answer(&mut self, conn: ConnId) -> Command {
        match <[Frame; 1]>::try_from(self.take(conn)) {
            Ok([Frame::Other(command)]) => command,
            other => panic!("not one command: {other:?}"),
        }
    }

    pub(crate) fn ask(&mut self, conn: ConnId, command: impl Into<Command>) -> Command {
        self.send(conn, command);
        self.answer(conn)
    }

    pub(crate) fn request_id(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request
    }

    /// LOOKUP of the topic, so that the broker owns it.
    pub(crate) fn look_up(&mut self, conn: ConnId, topic: &str) {
        let request_id = self.request_id();
        let lookup = pb::CommandLookupTopic { topic: topic.to_owned(), request_id, ..Default::default() };
        let Command::LookupResponse(response) = self.ask(conn, lookup) else { panic!("no LOOKUP_RESPONSE") };
        assert_eq!(response.response, Some(1), "{response:?}");
    }

    /// LOOKUP of [`TOPIC`] without reading the response.
    pub(crate) fn look_up_quietly(&mut self, conn: ConnId) {
        self.send(conn, pb::CommandLookupTopic { topic: TOPIC.to_owned(), request_id: 0, ..Default::default() });
    }

    /// LOOKUP and PRODUCER on [`TOPIC`]; the answer is PRODUCER_SUCCESS.
    pub(crate) fn producer(&mut self, conn: ConnId, id: u64) -> pb::CommandProducerSuccess {
        self.producer_on(conn, id, TOPIC)
    }

    pub(crate) fn producer_on(&mut self, conn: ConnId, id: u64, topic: &str) -> pb::CommandProducerSuccess {
        self.look_up(conn, topic);
        let command = producer_command(self.request_id(), id, topic);
        match self.ask(conn, command) {
            Command::ProducerSuccess(success) => success,
            other => panic!("no PRODUCER_SUCCESS: {other:?}"),
        }
    }

    /// LOOKUP, SUBSCRIBE from the earliest message on [`TOPIC`], and FLOW.
    pub(crate) fn consumer(&mut self, conn: ConnId, id: u64, sub_type: SubType, permits: u32) {
        let name = format!("consumer-{id}");
        self.consumer_as(conn, id, sub_type, permits, |subscribe| subscribe.consumer_name = Some(name));
    }

    pub(crate) fn consumer_as(
        &mut self,
        conn: ConnId,
        id: u64,
        sub_type: SubType,
        permits: u32,
        change: impl FnOnce(&mut pb::CommandSubscribe),
    ) {
        let mut subscribe = subscribe_command(self.request_id(), id, sub_type);
        change(&mut subscribe);
        let topic = subscribe.topic.clone();
        self.look_up(conn, &topic);
        self.send(conn, subscribe);
        let answers = self.take(conn);
        assert!(matches!(answers.last(), Some(Frame::Other(Command::Success(_)))), "no SUCCESS: {answers:?}");
        if permits > 0 {
            self.flow(conn, id, permits);
        }
    }

    pub(crate) fn flow(&mut self, conn: ConnId, consumer_id: u64, message_permits: u32) {
        self.send(conn, pb::CommandFlow { consumer_id, message_permits });
    }

    /// SEND of one message by producer `p`, without waiting for the receipt.
    pub(crate) fn publish(&mut self, conn: ConnId, producer_id: u64, name: &str, sequence_id: u64, payload: &[u8]) {
        self.publish_keyed(conn, producer_id, name, sequence_id, None, payload);
    }

    pub(crate) fn publish_keyed(
        &mut self,
        conn: ConnId,
        producer_id: u64,
        name: &str,
        sequence_id: u64,
        key: Option<&str>,
        payload: &[u8],
    ) {
        let metadata = MetadataFields {
            producer_name: name,
            sequence_id,
            publish_time_ms: self.now.wall_ms,
            partition_key: key,
            ..Default::default()
        };
        self.publish_metadata(conn, &SendHead::new(producer_id, sequence_id), &metadata, payload);
    }

    pub(crate) fn publish_metadata(
        &mut self,
        conn: ConnId,
        head: &SendHead,
        metadata: &MetadataFields<'_>,
        payload: &[u8],
    ) {
        let mut entry = BytesMut::new();
        put_entry(&mut entry, metadata, payload);
        self.publish_entry(conn, head, &entry);
    }

    pub(crate) fn publish_entry(&mut self, conn: ConnId, head: &SendHead, entry: &[u8]) {
        let mut frame = BytesMut::new();
        put_send_head(&mut frame, head, entry.len());
        frame.extend_from_slice(entry);
        self.send_bytes(conn, &frame);
    }

    /// SEND of a batch of `count` messages from `first` on, as Java makes it.
    pub(crate) fn publish_batch(&mut self, conn: ConnId, producer_id: u64, name: &str, first: u64, count: i32) {
        let mut payload = BytesMut::new();
        for index in 0..count {
            let body = format!("b{index}");
            let single = SingleFields {
                sequence_id: Some(first + index as u64),
                payload_size: body.len() as i32,
                ..Default::default()
            };
            put_record(&mut payload, &single, body.as_bytes());
        }
        let highest = first + count as u64 - 1;
        let metadata = MetadataFields {
            producer_name: name,
            sequence_id: first,
            publish_time_ms: self.now.wall_ms,
            num_messages_in_batch: Some(count),
            highest_sequence_id: Some(highest),
            ..Default::default()
        };
        let mut head = SendHead::new(producer_id, first);
        head.num_messages = count;
        head.highest_sequence_id = Some(highest);
        self.publish_metadata(conn, &head, &metadata, &payload);
    }

    pub(crate) fn receipts(&mut self, conn: ConnId) -> Vec<Receipt> {
        let receipt = |frame| match frame {
            Frame::Receipt(receipt) => receipt,
            other => panic!("not a receipt: {other:?}"),
        };
        self.take(conn).into_iter().map(receipt).collect()
    }

    /// The MESSAGE frames written; there must be no others.
    pub(crate) fn messages(&mut self, conn: ConnId) -> Vec<(MessageHead, Bytes)> {
        let message = |frame| match frame {
            Frame::Message { head, entry } => (head, entry),
            other => panic!("not a message: {other:?}"),
        };
        self.take(conn).into_iter().map(message).collect()
    }

    /// Entry ids of the MESSAGE frames written.
    pub(crate) fn entries(&mut self, conn: ConnId) -> Vec<u64> {
        self.messages(conn).iter().map(|(head, _)| head.entry_id).collect()
    }

    pub(crate) fn ack(&mut self, conn: ConnId, consumer_id: u64, ack_type: AckType, ids: Vec<MessageIdData>) {
        let ack = pb::CommandAck { consumer_id, ack_type: ack_type.into(), message_id: ids, ..Default::default() };
        self.send(conn, ack);
    }

    /// Acks one entry of ledger 1, which is the first topic's.
    pub(crate) fn ack_entry(&mut self, conn: ConnId, consumer_id: u64, entry_id: u64) {
        self.ack(conn, consumer_id, AckType::Individual, vec![id(1, entry_id)]);
    }

    pub(crate) fn redeliver(&mut self, conn: ConnId, consumer_id: u64, ids: Vec<MessageIdData>) {
        let command =
            pb::CommandRedeliverUnacknowledgedMessages { consumer_id, message_ids: ids, consumer_epoch: None };
        self.send(conn, command);
    }

    /// The broker ended this connection without an answer.
    #[track_caller]
    pub(crate) fn assert_closed(&mut self, conn: ConnId) {
        assert!(self.broker.closing(conn), "the connection is still open");
        assert_eq!(self.take(conn), Vec::new(), "closed, but with an answer");
    }

    #[track_caller]
    pub(crate) fn assert_open(&mut self, conn: ConnId) {
        assert!(!self.broker.closing(conn), "the connection was closed: {:?}", self.broker.violations());
    }

    /// The rules broken since the last call.
    #[track_caller]
    pub(crate) fn broken(&mut self) -> Vec<Rule> {
        let rules: Vec<Rule> = self.broker.violations().iter().map(|violation| violation.rule).collect();
        self.broker.clear_violations();
        #[cfg(feature = "tap")]
        self.wire.compare(&rules);
        rules
    }

    /// No client broke a rule.
    #[track_caller]
    pub(crate) fn assert_clean(&mut self) {
        assert_eq!(self.broker.violations(), &[]);
    }
}

pub(crate) fn connect_command(protocol_version: i32) -> pb::CommandConnect {
    pb::CommandConnect {
        client_version: "scenario".to_owned(),
        protocol_version: Some(protocol_version),
        ..Default::default()
    }
}

pub(crate) fn producer_command(request_id: u64, producer_id: u64, topic: &str) -> pb::CommandProducer {
    pb::CommandProducer {
        topic: topic.to_owned(),
        producer_id,
        request_id,
        producer_name: Some("p".to_owned()),
        ..Default::default()
    }
}

pub(crate) fn subscribe_command(request_id: u64, consumer_id: u64, sub_type: SubType) -> pb::CommandSubscribe {
    pb::CommandSubscribe {
        topic: TOPIC.to_owned(),
        subscription: "s".to_owned(),
        sub_type: sub_type.into(),
        consumer_id,
        request_id,
        initial_position: Some(1),
        ..Default::default()
    }
}

pub(crate) fn id(ledger_id: u64, entry_id: u64) -> MessageIdData {
    MessageIdData { ledger_id, entry_id, ..Default::default() }
}

pub(crate) fn id_with(ledger_id: u64, entry_id: u64, ack_set: &[i64]) -> MessageIdData {
    MessageIdData { ledger_id, entry_id, ack_set: ack_set.to_vec(), ..Default::default() }
}

/// Code and text of an ERROR.
#[track_caller]
pub(crate) fn error_of(command: &Command) -> (pb::ServerError, &str) {
    match command {
        Command::Error(error) => (error.error(), &error.message),
        other => panic!("not an ERROR: {other:?}"),
    }
}
