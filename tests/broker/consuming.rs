//! SUBSCRIBE, FLOW, MESSAGE, ACK, REDELIVER, SEEK.

use std::time::Duration;

use pulsar_native::broker::Rule;
use pulsar_native::broker::machine::ConnId;
use pulsar_native::pb::command_ack::AckType;
use pulsar_native::pb::command_subscribe::SubType;
use pulsar_native::pb::{self, MessageIdData};
use pulsar_native::wire::metadata::{ChunkFields, MetadataFields};
use pulsar_native::wire::{Command, Frame, SendHead};

use crate::support::{BrokerHarness, TOPIC, connect_command, error_of, id, id_with, subscribe_command};

/// A connection, and `count` messages of producer `p` stored.
fn with_messages(count: u64) -> (BrokerHarness, ConnId) {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.producer(conn, 1);
    for sequence_id in 0..count {
        harness.publish(conn, 1, "p", sequence_id, b"x");
    }
    harness.receipts(conn);
    (harness, conn)
}

/// The same with batches of ten.
fn with_batches(count: u64) -> (BrokerHarness, ConnId) {
    let (mut harness, conn) = with_messages(0);
    for batch in 0..count {
        harness.publish_batch(conn, 1, "p", batch * 10, 10);
    }
    harness.receipts(conn);
    (harness, conn)
}

fn permits(harness: &BrokerHarness, consumer: usize) -> i64 {
    harness.broker.stats(TOPIC).expect("topic").subscriptions["s"].consumers[consumer].available_permits
}

fn backlog(harness: &BrokerHarness) -> u64 {
    harness.broker.stats(TOPIC).expect("topic").subscriptions["s"].msg_backlog
}

/// Entry and redelivery count of the MESSAGE frames.
fn deliveries(harness: &mut BrokerHarness, conn: ConnId) -> Vec<(u64, u32)> {
    harness.messages(conn).iter().map(|(head, _)| (head.entry_id, head.redelivery_count)).collect()
}

#[test]
fn an_exclusive_consumer_gets_what_its_permits_allow() {
    let (mut harness, conn) = with_messages(5);
    harness.consumer(conn, 1, SubType::Exclusive, 2);
    assert_eq!(harness.entries(conn), [0, 1]);
    harness.flow(conn, 1, 10);
    assert_eq!(harness.entries(conn), [2, 3, 4]);
    harness.ack(conn, 1, AckType::Cumulative, vec![id(1, 3)]);
    let stats = harness.broker.stats(TOPIC).expect("topic");
    assert_eq!((stats.subscriptions["s"].msg_backlog, stats.subscriptions["s"].unacked_messages), (1, 1));
    harness.assert_clean();
}

#[test]
fn permits_gate_entries_not_messages() {
    for (sub_type, flow, sent, left) in [
        (SubType::Exclusive, 5, 5, -45),
        (SubType::Failover, 5, 5, -45),
        (SubType::KeyShared, 5, 5, -45),
        (SubType::Shared, 5, 1, -5),
        (SubType::Shared, 45, 5, -5),
        (SubType::Exclusive, 1, 1, -9),
    ] {
        let (mut harness, conn) = with_batches(10);
        harness.consumer(conn, 1, sub_type, 0);
        harness.advance(Duration::from_secs(1));
        harness.take(conn);
        harness.flow(conn, 1, flow);
        assert_eq!(harness.entries(conn).len(), sent, "{sub_type:?} with {flow}");
        assert_eq!(permits(&harness, 0), left, "{sub_type:?} with {flow}");
        harness.flow(conn, 1, left.unsigned_abs() as u32);
        assert_eq!(harness.entries(conn), [0; 0], "nothing moves at zero");
    }
}

#[test]
fn members_acknowledged_before_are_not_charged() {
    let (mut harness, conn) = with_batches(1);
    harness.consumer(conn, 1, SubType::Shared, 100);
    harness.take(conn);
    harness.ack(conn, 1, AckType::Individual, vec![id_with(1, 0, &[0b11_1000_0000])]);
    assert_eq!((backlog(&harness), permits(&harness, 0)), (3, 90));
    harness.redeliver(conn, 1, Vec::new());
    let (head, _) = harness.messages(conn).remove(0);
    assert_eq!((head.ack_set, head.redelivery_count), (vec![0b11_1000_0000].into(), 1));
    assert_eq!(permits(&harness, 0), 87);
    harness.ack(conn, 1, AckType::Individual, vec![id_with(1, 0, &[0])]);
    assert_eq!(backlog(&harness), 0);
    harness.assert_clean();
}

#[test]
fn without_index_acks_partial_ones_are_ignored() {
    let mut harness = BrokerHarness::with(|config| config.acknowledgment_at_batch_index_level_enabled = false);
    let conn = harness.connect();
    harness.producer(conn, 1);
    harness.publish_batch(conn, 1, "p", 0, 10);
    harness.publish_batch(conn, 1, "p", 10, 10);
    harness.receipts(conn);
    harness.consumer(conn, 1, SubType::Exclusive, 100);
    harness.take(conn);
    harness.ack(conn, 1, AckType::Individual, vec![id_with(1, 0, &[0])]);
    assert_eq!(backlog(&harness), 20);
    harness.ack(conn, 1, AckType::Cumulative, vec![id_with(1, 1, &[0b1000])]);
    assert_eq!(backlog(&harness), 10, "everything before that entry");
}

#[test]
fn cumulative_acks_take_part_of_a_batch_and_entry_minus_one() {
    let (mut harness, conn) = with_batches(2);
    harness.consumer(conn, 1, SubType::Exclusive, 100);
    harness.take(conn);
    harness.ack(conn, 1, AckType::Cumulative, vec![id(1, u64::MAX)]);
    assert_eq!(backlog(&harness), 20);
    harness.ack(conn, 1, AckType::Cumulative, vec![id_with(1, 1, &[0b11_0000_0000])]);
    assert_eq!(backlog(&harness), 2);
    harness.assert_clean();
}

#[test]
fn acks_of_undelivered_entries_are_violations() {
    let (mut harness, conn) = with_messages(3);
    harness.consumer(conn, 1, SubType::Shared, 1);
    harness.take(conn);
    harness.ack_entry(conn, 1, 0);
    harness.ack_entry(conn, 1, 0);
    harness.assert_clean();
    harness.ack_entry(conn, 1, 2);
    harness.ack_entry(conn, 1, 99);
    harness.ack(conn, 1, AckType::Individual, vec![id(77, 0)]);
    assert_eq!(harness.broken(), [Rule::AckNotDelivered; 3]);
    assert_eq!(backlog(&harness), 1, "a real broker acknowledges an entry that exists");
}

#[test]
fn acks_that_arrive_after_a_reconnect_are_those_of_the_same_consumer() {
    let (mut harness, conn) = with_messages(2);
    let first = harness.connect();
    harness.consumer(first, 1, SubType::Shared, 10);
    harness.take(first);
    harness.broker.disconnect(first);
    harness.consumer(conn, 1, SubType::Shared, 0);
    harness.ack_entry(conn, 1, 1);
    harness.assert_clean();
    assert_eq!(backlog(&harness), 1);
}

#[test]
fn after_an_unsubscribe_only_acks_are_no_violations() {
    let (mut harness, conn) = with_messages(1);
    harness.consumer(conn, 1, SubType::Shared, 1);
    harness.take(conn);
    harness.ask(conn, pb::CommandUnsubscribe { consumer_id: 1, request_id: 1, ..Default::default() });
    harness.ack_entry(conn, 1, 0);
    harness.assert_clean();
    harness.flow(conn, 1, 1);
    assert_eq!(harness.broken(), [Rule::AfterClose]);
}

#[test]
fn commands_after_a_close_are_violations() {
    let (mut harness, conn) = with_messages(1);
    harness.consumer(conn, 1, SubType::Shared, 1);
    harness.take(conn);
    harness.ask(conn, pb::CommandCloseConsumer { consumer_id: 1, request_id: 1, ..Default::default() });
    harness.ack_entry(conn, 1, 0);
    harness.flow(conn, 1, 1);
    assert_eq!(harness.broken(), [Rule::AfterClose; 2]);
    harness.assert_open(conn);
}

#[test]
fn shared_consumers_take_turns_and_unacked_entries_go_to_the_others() {
    let mut harness = BrokerHarness::new();
    let (a, b) = (harness.connect(), harness.connect());
    harness.producer(a, 1);
    harness.consumer(a, 1, SubType::Shared, 10);
    harness.consumer(b, 2, SubType::Shared, 10);
    for sequence_id in 0..4 {
        harness.publish(a, 1, "p", sequence_id, b"x");
    }
    let entries = harness.entries(b);
    assert_eq!(entries.len(), 2);
    harness.broker.disconnect(b);
    let message = |frame| match frame {
        Frame::Message { head, .. } => Some((head.entry_id, head.redelivery_count)),
        _ => None,
    };
    let delivered: Vec<_> = harness.take(a).into_iter().filter_map(message).collect();
    assert_eq!(delivered.len(), 4);
    assert!(entries.iter().all(|entry| delivered.contains(&(*entry, 0))), "the count does not grow: {delivered:?}");
    harness.assert_clean();
}

#[test]
fn the_next_priority_level_is_served_when_the_first_has_no_permits() {
    let (mut harness, conn) = with_messages(0);
    let (low, high) = (harness.connect(), harness.connect());
    harness.consumer_as(low, 1, SubType::Shared, 10, |subscribe| subscribe.priority_level = Some(1));
    harness.consumer_as(high, 2, SubType::Shared, 3, |subscribe| subscribe.priority_level = Some(0));
    for sequence_id in 0..5 {
        harness.publish(conn, 1, "p", sequence_id, b"x");
    }
    assert_eq!((harness.entries(high), harness.entries(low)), (vec![0, 1, 2], vec![3, 4]));
}

#[test]
fn nacked_entries_are_redelivered_counted_and_charged() {
    let (mut harness, conn) = with_messages(3);
    harness.consumer(conn, 1, SubType::Shared, 4);
    assert_eq!(deliveries(&mut harness, conn), [(0, 0), (1, 0), (2, 0)]);
    harness.ack_entry(conn, 1, 0);
    harness.redeliver(conn, 1, vec![id(1, 0), id(1, 2), id(5, 5)]);
    assert_eq!(deliveries(&mut harness, conn), [(2, 1)], "acknowledged and unknown ids are skipped");
    harness.redeliver(conn, 1, vec![id(1, 2)]);
    assert_eq!(deliveries(&mut harness, conn), [], "no permits left");
    harness.flow(conn, 1, 5);
    assert_eq!(deliveries(&mut harness, conn), [(2, 2)]);
    harness.redeliver(conn, 1, Vec::new());
    assert_eq!(deliveries(&mut harness, conn), [(1, 1), (2, 3)]);
}

#[test]
fn an_exclusive_redelivery_rewinds_without_a_count_and_stamps_the_epoch() {
    let (mut harness, conn) = with_messages(4);
    harness.consumer_as(conn, 1, SubType::Exclusive, 100, |subscribe| subscribe.consumer_epoch = Some(0));
    assert_eq!(harness.entries(conn).len(), 4);
    harness.ack_entry(conn, 1, 0);
    harness.ack_entry(conn, 1, 2);
    let redeliver = |epoch| pb::CommandRedeliverUnacknowledgedMessages {
        consumer_id: 1,
        message_ids: vec![id(1, 3)],
        consumer_epoch: epoch,
    };
    for (epoch, stamped) in [(Some(1), 1), (None, 1), (Some(0), 1), (Some(7), 7)] {
        harness.send(conn, redeliver(epoch));
        let messages = harness.messages(conn);
        let heads: Vec<_> = messages.iter().map(|(h, _)| (h.entry_id, h.redelivery_count, h.consumer_epoch)).collect();
        assert_eq!(heads, [(1, 0, Some(stamped)), (3, 0, Some(stamped))]);
    }
}

#[test]
fn delivery_stops_at_the_limit_of_unacked_messages_and_goes_on_at_half() {
    let mut harness = BrokerHarness::with(|config| config.max_unacked_messages_per_consumer = 5);
    let conn = harness.connect();
    harness.producer(conn, 1);
    for sequence_id in 0..10 {
        harness.publish(conn, 1, "p", sequence_id, b"x");
    }
    harness.receipts(conn);
    harness.consumer(conn, 1, SubType::Shared, 100);
    assert_eq!(harness.entries(conn), [0, 1, 2, 3, 4]);
    harness.ack(conn, 1, AckType::Individual, vec![id(1, 0), id(1, 1)]);
    assert_eq!(harness.entries(conn), [0; 0], "three are left, more than half");
    harness.ack_entry(conn, 1, 2);
    assert_eq!(harness.entries(conn), [5, 6, 7]);
}

#[test]
fn delayed_messages_wait_on_shared_and_only_there() {
    for (sub_type, waits) in [(SubType::Shared, true), (SubType::KeyShared, true), (SubType::Exclusive, false)] {
        let (mut harness, conn) = with_messages(0);
        harness.consumer(conn, 1, sub_type, 10);
        let metadata = MetadataFields {
            producer_name: "p",
            deliver_at_time_ms: Some(harness.now.wall_ms as i64 + 1_000),
            ..Default::default()
        };
        harness.publish_metadata(conn, &SendHead::new(1, 0), &metadata, b"late");
        assert_eq!(harness.take(conn).len(), if waits { 1 } else { 2 }, "{sub_type:?}");
        harness.advance(Duration::from_millis(999));
        assert_eq!(harness.take(conn), []);
        harness.advance(Duration::from_millis(1));
        assert_eq!(harness.entries(conn).len(), usize::from(waits), "{sub_type:?}");
    }
}

#[test]
fn each_delayed_message_has_its_own_time() {
    let (mut harness, conn) = with_messages(0);
    harness.consumer(conn, 1, SubType::Shared, 10);
    for (sequence_id, delay_ms) in [(0, 10), (1, 30), (2, 20), (3, 5)] {
        let deliver_at_time_ms = Some(harness.now.wall_ms as i64 + delay_ms);
        let metadata = MetadataFields { producer_name: "p", sequence_id, deliver_at_time_ms, ..Default::default() };
        harness.publish_metadata(conn, &SendHead::new(1, sequence_id), &metadata, b"late");
    }
    harness.receipts(conn);
    for expected in [3, 0, 2, 1] {
        let due = harness.broker.poll_deadline().expect("a timer").at;
        harness.advance(due.saturating_duration_since(harness.now.at));
        assert_eq!(harness.entries(conn), [expected]);
    }
}

#[test]
fn all_chunks_of_a_message_go_to_one_shared_consumer() {
    let (mut harness, conn) = with_messages(0);
    let (a, b) = (harness.connect(), harness.connect());
    harness.consumer(a, 1, SubType::Shared, 100);
    harness.consumer(b, 2, SubType::Shared, 100);
    for (uuid, sequence_id) in [("p-0", 0), ("p-1", 1)] {
        for chunk_id in 0..3 {
            let chunk = ChunkFields { uuid, num_chunks: 3, total_bytes: 9, chunk_id };
            let metadata = MetadataFields { producer_name: "p", sequence_id, chunk: Some(chunk), ..Default::default() };
            let head = SendHead { is_chunk: true, ..SendHead::new(1, sequence_id) };
            harness.publish_metadata(conn, &head, &metadata, b"abc");
        }
    }
    let mut both = [harness.entries(a), harness.entries(b)];
    both.sort();
    assert_eq!(both, [vec![0, 1, 2], vec![3, 4, 5]]);
    harness.assert_clean();
}

#[test]
fn a_full_connection_holds_deliveries_back_until_it_is_read() {
    let mut harness = BrokerHarness::with(|config| config.pulsar_channel_write_buffer_high_water_mark = 4_000);
    let (conn, slow) = (harness.connect(), harness.connect());
    harness.producer(conn, 1);
    harness.consumer(slow, 1, SubType::Exclusive, 1_000);
    for sequence_id in 0..100 {
        harness.publish(conn, 1, "p", sequence_id, &[0; 1_000]);
    }
    let mut read = Vec::new();
    loop {
        let bytes = harness.take_bytes(slow);
        if bytes.is_empty() {
            break;
        }
        assert!(bytes.len() < 8_000 + 2_000, "{} bytes at once", bytes.len());
        read.extend(pulsar_native::wire::frames(bytes));
    }
    assert_eq!(read.len(), 100);
}

/// What a reader that starts at `start` gets of five entries.
fn read_from(start: Option<MessageIdData>, position: i32) -> Vec<u64> {
    let (mut harness, conn) = with_messages(5);
    harness.consumer_as(conn, 1, SubType::Exclusive, 100, |subscribe| {
        subscribe.durable = Some(false);
        subscribe.start_message_id = start;
        subscribe.initial_position = Some(position);
    });
    harness.entries(conn)
}

#[test]
fn non_durable_subscriptions_start_as_in_the_table_of_the_test() {
    const LATEST: i32 = 0;
    const EARLIEST: i32 = 1;
    let all = [0, 1, 2, 3, 4];
    for first in [id(u64::MAX, u64::MAX), id(u64::MAX, 3), id(1, u64::MAX), id(0, 2)] {
        assert_eq!(read_from(Some(first), LATEST), all);
    }
    assert_eq!(read_from(Some(id(1, 2)), LATEST), [2, 3, 4]);
    let latest = id(i64::MAX as u64, i64::MAX as u64);
    for beyond in [id(1, 5), id(1, 99), id(9, 0), latest] {
        assert_eq!(read_from(Some(beyond.clone()), LATEST), [0; 0]);
        assert_eq!(read_from(Some(beyond), EARLIEST), all);
    }
    assert_eq!((read_from(None, LATEST), read_from(None, EARLIEST)), (vec![], all.to_vec()));
}

#[test]
fn a_non_durable_subscription_ends_with_its_consumer_but_not_with_a_seek() {
    let (mut harness, conn) = with_messages(3);
    let reader = |subscribe: &mut pb::CommandSubscribe| subscribe.durable = Some(false);
    harness.consumer_as(conn, 1, SubType::Exclusive, 10, reader);
    harness.take(conn);
    let seek = pb::CommandSeek { consumer_id: 1, request_id: 1, message_id: Some(id(1, 2)), ..Default::default() };
    harness.send(conn, seek);
    harness.take(conn);
    harness.consumer_as(conn, 1, SubType::Exclusive, 10, reader);
    assert_eq!(harness.entries(conn), [2], "joined as it is");
    harness.ask(conn, pb::CommandCloseConsumer { consumer_id: 1, request_id: 2, ..Default::default() });
    assert!(harness.broker.stats(TOPIC).unwrap().subscriptions.is_empty());
}

#[test]
fn seek_goes_by_id_or_time_and_disconnects_all_consumers() {
    let mut harness = BrokerHarness::new();
    let (conn, other) = (harness.connect(), harness.connect());
    harness.producer(conn, 1);
    for sequence_id in 0..5 {
        harness.publish(conn, 1, "p", sequence_id, b"x");
        harness.advance(Duration::from_millis(10));
    }
    harness.receipts(conn);
    let started = harness.now.wall_ms - 50;
    let latest = id(i64::MAX as u64, i64::MAX as u64);
    for (message_id, time, expected) in [
        (Some(id(u64::MAX, u64::MAX)), None, vec![0, 1, 2, 3, 4]),
        (Some(id(1, 3)), Some(0), vec![3, 4]),
        (Some(latest), None, vec![]),
        (None, Some(0), vec![0, 1, 2, 3, 4]),
        (None, Some(started + 20), vec![2, 3, 4]),
        (None, Some(u64::MAX), vec![]),
    ] {
        harness.consumer(conn, 1, SubType::Shared, 0);
        harness.consumer(other, 2, SubType::Shared, 0);
        let seek = pb::CommandSeek { consumer_id: 1, request_id: 7, message_id, message_publish_time: time };
        harness.send(conn, seek);
        let seeker = harness.take(conn);
        assert!(matches!(&seeker[0], Frame::Other(Command::CloseConsumer(_))), "{seeker:?}");
        assert!(matches!(&seeker[1], Frame::Other(Command::Success(success)) if success.request_id == 7));
        assert!(matches!(harness.answer(other), Command::CloseConsumer(_)));
        harness.consumer(conn, 1, SubType::Shared, 100);
        assert_eq!(harness.entries(conn), expected);
        harness.ask(conn, pb::CommandCloseConsumer { consumer_id: 1, request_id: 8, ..Default::default() });
    }
    harness.assert_clean();
}

#[test]
fn unsubscribe_with_force_closes_the_others() {
    let mut harness = BrokerHarness::new();
    let (a, b) = (harness.connect(), harness.connect());
    harness.consumer(a, 1, SubType::Shared, 0);
    harness.consumer(b, 2, SubType::Shared, 0);
    let answer = harness.ask(a, pb::CommandUnsubscribe { consumer_id: 1, request_id: 1, force: Some(true) });
    assert!(matches!(answer, Command::Success(_)));
    assert!(matches!(harness.answer(b), Command::CloseConsumer(_)));
    assert!(harness.broker.stats(TOPIC).unwrap().subscriptions.is_empty());
}

#[test]
fn failover_hands_over_after_a_second_and_from_the_first_unacked() {
    let (mut harness, conn) = with_messages(3);
    let (a, b) = (harness.connect(), harness.connect());
    let named = |name: &'static str, level| {
        move |subscribe: &mut pb::CommandSubscribe| {
            subscribe.consumer_name = Some(name.to_owned());
            subscribe.priority_level = Some(level);
        }
    };
    harness.consumer_as(a, 1, SubType::Failover, 10, named("a", 1));
    assert_eq!(harness.take(a), [], "not before the delay");
    harness.advance(Duration::from_secs(1));
    assert_eq!(harness.take(a).len(), 4, "the notice and three messages");
    harness.ack_entry(a, 1, 0);
    harness.consumer_as(b, 2, SubType::Failover, 10, named("b", 0));
    harness.publish(conn, 1, "p", 3, b"x");
    harness.advance(Duration::from_millis(999));
    assert_eq!((harness.take(a), harness.take(b)), (vec![], vec![]));
    harness.advance(Duration::from_millis(1));
    assert!(matches!(harness.answer(a), Command::ActiveConsumerChange(change) if change.is_active == Some(false)));
    let frames = harness.take(b);
    assert!(
        matches!(&frames[0], Frame::Other(Command::ActiveConsumerChange(change)) if change.is_active == Some(true))
    );
    assert_eq!(frames.len(), 4, "entries 1, 2, 3: {frames:?}");
    // Leaving the active one brings the other back.
    harness.broker.disconnect(b);
    harness.advance(Duration::from_secs(1));
    assert_eq!(harness.take(a).len(), 4);
    harness.assert_clean();
}

#[test]
fn a_non_persistent_topic_delivers_at_once_or_not_at_all() {
    let topic = "non-persistent://public/default/n";
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.producer_on(conn, 1, topic);
    let on_topic = |subscribe: &mut pb::CommandSubscribe| subscribe.topic = topic.to_owned();
    harness.publish(conn, 1, "p", 0, b"no consumer");
    harness.receipts(conn);
    harness.consumer_as(conn, 1, SubType::Shared, 1, on_topic);
    for sequence_id in 1..4 {
        harness.publish(conn, 1, "p", sequence_id, b"x");
    }
    let frames = harness.take(conn);
    let receipts = frames.iter().filter(|f| matches!(f, Frame::Receipt(r) if (r.ledger_id, r.entry_id) == (0, 0)));
    assert_eq!(receipts.count(), 3);
    assert_eq!(
        frames.iter().filter(|frame| matches!(frame, Frame::Message { .. })).count(),
        1,
        "one permit, one message"
    );
    let answer = harness.ask(conn, pb::CommandGetLastMessageId { consumer_id: 1, request_id: 1 });
    assert_eq!(error_of(&answer).0, pb::ServerError::UnknownError);
    let seek = pb::CommandSeek { consumer_id: 1, request_id: 2, message_id: Some(id(0, 0)), ..Default::default() };
    assert!(matches!(harness.ask(conn, seek), Command::Success(_)), "and the consumer stays");
    assert_eq!(harness.broker.stats(topic).map(|stats| (stats.entries, stats.msg_in_counter)), Some((0, 4)));
}

#[test]
fn a_silent_exclusive_consumer_loses_its_subscription_to_the_next() {
    let mut harness = BrokerHarness::new();
    let (a, b) = (harness.connect(), harness.connect_as(connect_command(20)));
    harness.consumer(a, 1, SubType::Exclusive, 0);
    harness.send(b, subscribe_command(9, 1, SubType::Exclusive));
    assert_eq!(harness.take(b), []);
    harness.advance(Duration::from_secs(5));
    assert!(matches!(harness.answer(b), Command::Success(success) if success.request_id == 9));
}

#[test]
fn a_consumer_starting_at_the_end_of_a_topic_gets_notice_after_its_flow() {
    let (mut harness, conn) = with_messages(1);
    harness.broker.terminate(TOPIC);
    harness.take(conn);
    harness.consumer_as(conn, 1, SubType::Exclusive, 0, |subscribe| subscribe.initial_position = Some(0));
    assert_eq!(harness.take(conn), []);
    harness.flow(conn, 1, 1);
    assert!(matches!(harness.answer(conn), Command::ReachedEndOfTopic(_)));
    harness.flow(conn, 1, 1);
    assert_eq!(harness.take(conn), [], "once");
}
