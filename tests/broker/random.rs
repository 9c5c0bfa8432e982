//! Random clients: the counts of unacknowledged messages stay right, and a last consumer gets everything that is left.

use std::time::Duration;

use bytes::BytesMut;
use pulsar_native::broker::machine::ConnId;
use pulsar_native::pb::command_ack::AckType;
use pulsar_native::pb::command_subscribe::SubType;
use pulsar_native::pb::{self, MessageIdData};
use pulsar_native::wire::{Frame, SendHead, put_flow, put_ping, put_send_head};

use crate::common::random::Random;
use crate::support::{BrokerHarness, TOPIC, id_with, producer_command, subscribe_command};

/// Connection 0 produces; the others consume under their own index as consumer id.
struct RandomClients {
    harness: BrokerHarness,
    conns: Vec<ConnId>,
    random: Random,
    sub_type: SubType,
    seen: Vec<(u64, u64)>,
    next_sequence: u64,
    epoch: u64,
}

impl RandomClients {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let index_ack = random.below(2) == 0;
        let mut harness = BrokerHarness::with(|config| {
            config.acknowledgment_at_batch_index_level_enabled = index_ack;
            config.max_unacked_messages_per_consumer = 60;
            config.pulsar_channel_write_buffer_high_water_mark = 3_000;
        });
        let types = [SubType::Exclusive, SubType::Shared, SubType::Failover, SubType::KeyShared];
        let sub_type = types[random.below(4) as usize];
        let conns: Vec<ConnId> = (0..4).map(|_| harness.connect()).collect();
        harness.look_up(conns[0], TOPIC);
        let mut clients = Self { harness, conns, random, sub_type, seen: Vec::new(), next_sequence: 0, epoch: 0 };
        clients.open_producer();
        // The subscription exists before the first message.
        clients.harness.consumer(clients.conns[1], 1, sub_type, 1);
        clients
    }

    fn open_producer(&mut self) {
        let command = pb::CommandProducer { epoch: Some(self.epoch), ..producer_command(1, 1, TOPIC) };
        self.epoch += 1;
        self.harness.look_up_quietly(self.conns[0]);
        self.harness.send(self.conns[0], command);
        self.read();
    }

    fn read(&mut self) {
        for conn in self.conns.clone() {
            for frame in self.harness.take(conn) {
                match frame {
                    Frame::Message { head, .. } => self.seen.push((head.ledger_id, head.entry_id)),
                    Frame::Other(pulsar_native::wire::Command::Ping(_)) => self.harness.send(conn, pb::CommandPong {}),
                    _ => {}
                }
            }
        }
    }

    fn some_id(&mut self) -> MessageIdData {
        let pick = self.random.below(self.seen.len().max(1) as u64) as usize;
        let (ledger, entry) = self.seen.get(pick).copied().unwrap_or((1, 0));
        match self.random.below(4) {
            0 => id_with(ledger, entry, &[self.random.next() as i64]),
            _ => id_with(ledger, entry, &[]),
        }
    }

    /// One thing that a client, the clock or an administrator does.
    fn step(&mut self) {
        let consumer_id = 1 + self.random.below(3);
        match self.random.below(16) {
            0..=2 => self.publish(),
            3..=10 => self.use_consumer(consumer_id),
            11..=13 => self.reopen_consumer(consumer_id),
            14 => self.harness.advance(Duration::from_millis(self.random.below(900))),
            _ if self.random.below(4) == 0 => {
                self.harness.broker.unload(TOPIC);
                self.read();
                self.open_producer();
            }
            _ => {}
        }
        if self.random.below(3) > 0 {
            self.read();
        }
    }

    fn publish(&mut self) {
        let sequence = self.next_sequence;
        self.next_sequence += 10;
        if self.random.below(3) == 0 {
            self.harness.publish_batch(self.conns[0], 1, "p", sequence, 1 + (sequence % 9) as i32);
        } else {
            let key = format!("k{}", self.random.below(7));
            self.harness.publish_keyed(self.conns[0], 1, "p", sequence, Some(&key), b"x");
        }
    }

    /// FLOW, ACK or REDELIVER, of what was seen or not.
    fn use_consumer(&mut self, consumer_id: u64) {
        let conn = self.conns[consumer_id as usize];
        match self.random.below(8) {
            0..=2 => {
                let permits = 1 + self.random.below(20) as u32;
                self.harness.flow(conn, consumer_id, permits);
            }
            3..=5 => {
                let ids = (0..self.random.below(4)).map(|_| self.some_id()).collect();
                self.harness.ack(conn, consumer_id, AckType::Individual, ids);
            }
            6 => {
                let id = self.some_id();
                self.harness.ack(conn, consumer_id, AckType::Cumulative, vec![id]);
            }
            _ => {
                let ids = (0..self.random.below(3)).map(|_| self.some_id()).collect();
                self.harness.redeliver(conn, consumer_id, ids);
            }
        }
    }

    /// SUBSCRIBE, CLOSE_CONSUMER, or a connection that is lost and made again.
    fn reopen_consumer(&mut self, consumer_id: u64) {
        let conn = self.conns[consumer_id as usize];
        match self.random.below(3) {
            0 => {
                let subscribe = subscribe_command(5, consumer_id, self.sub_type);
                self.harness.look_up_quietly(conn);
                self.harness.send(conn, subscribe);
            }
            1 => self.harness.send(conn, pb::CommandCloseConsumer { consumer_id, request_id: 6, ..Default::default() }),
            _ => {
                self.harness.broker.disconnect(conn);
                self.conns[consumer_id as usize] = self.harness.connect();
            }
        }
    }

    fn check(&self, seed: u64) {
        let stats = self.harness.broker.stats(TOPIC).expect("topic");
        let sub = &stats.subscriptions["s"];
        let of_consumers: u64 = sub.consumers.iter().map(|consumer| consumer.unacked_messages).sum();
        assert_eq!(of_consumers, sub.unacked_messages, "seed {seed}");
        assert!(sub.unacked_messages <= sub.msg_backlog, "seed {seed}: {sub:?}");
    }

    /// All consumers leave; one more takes and acknowledges all that is left.
    fn drain(&mut self, seed: u64) {
        let last = self.harness.connect();
        let shared = matches!(self.sub_type, SubType::Shared | SubType::KeyShared);
        // Joining first, it gets what the others hold handed on; joining last, from a rewound cursor.
        let joins_first = shared && self.random.below(2) == 0;
        if joins_first {
            self.harness.consumer(last, 9, self.sub_type, 1_000_000);
        }
        for conn in self.conns.clone().into_iter().skip(1) {
            self.harness.broker.disconnect(conn);
        }
        self.conns.truncate(1);
        if !joins_first {
            self.harness.consumer(last, 9, self.sub_type, 1_000_000);
        }
        self.harness.advance(Duration::from_secs(1));
        loop {
            let frames = self.harness.take(last);
            let ids: Vec<_> = frames
                .iter()
                .filter_map(|frame| match frame {
                    Frame::Message { head, .. } => Some(id_with(head.ledger_id, head.entry_id, &[])),
                    _ => None,
                })
                .collect();
            if ids.is_empty() {
                break;
            }
            self.harness.ack(last, 9, AckType::Individual, ids);
        }
        let stats = self.harness.broker.stats(TOPIC).expect("topic");
        assert_eq!(stats.subscriptions["s"].msg_backlog, 0, "seed {seed}: {:?}", self.sub_type);
        assert_eq!(stats.subscriptions["s"].unacked_messages, 0, "seed {seed}");
    }
}

#[test]
fn unacked_counts_match_and_a_last_consumer_receives_the_rest() {
    for seed in 0..300 {
        let mut clients = RandomClients::new(seed);
        for _ in 0..200 {
            clients.step();
            clients.check(seed);
        }
        clients.drain(seed);
    }
}

/// A stream of good frames with some bytes changed, cut at random.
#[test]
fn random_bytes_never_panic_the_broker() {
    for seed in 0..2_000 {
        let mut random = Random::new(seed);
        let mut harness = BrokerHarness::new();
        let conn = harness.connect();
        harness.producer(conn, 1);
        harness.consumer(conn, 1, SubType::Shared, 10);
        let mut bytes = good_frames(&mut random);
        for _ in 0..=random.below(6) {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = random.next() as u8;
        }
        let mut rx = BytesMut::new();
        while !bytes.is_empty() {
            let piece = bytes.split_to((1 + random.below(40) as usize).min(bytes.len()));
            harness.receive(conn, &mut rx, &piece);
            harness.take(conn);
        }
        harness.advance(Duration::from_secs(61));
    }
}

/// Twenty frames that clients send.
fn good_frames(random: &mut Random) -> BytesMut {
    let mut bytes = BytesMut::new();
    for _ in 0..20 {
        match random.below(5) {
            0 => put_ping(&mut bytes),
            1 => put_flow(&mut bytes, 1, 5),
            2 => {
                let ack =
                    pb::CommandAck { consumer_id: 1, message_id: vec![id_with(1, 0, &[3])], ..Default::default() };
                pulsar_native::wire::Command::from(ack).encode_frame(&mut bytes);
            }
            3 => {
                let seek =
                    pb::CommandSeek { consumer_id: 1, message_id: Some(id_with(1, 0, &[1])), ..Default::default() };
                pulsar_native::wire::Command::from(seek).encode_frame(&mut bytes);
            }
            _ => {
                let entry = b"\0\0\0\x0c\x0a\x01p\x10\x00\x18\x80\x89\x7a\x58\x02\0hello";
                put_send_head(&mut bytes, &SendHead::new(1, random.below(9)), entry.len());
                bytes.extend_from_slice(entry);
            }
        }
    }
    bytes
}
