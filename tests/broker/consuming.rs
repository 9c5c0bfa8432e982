//! SUBSCRIBE, FLOW, MESSAGE, ACK, REDELIVER, SEEK.

use std::time::Duration;

use pulsar_native::broker::Rule;
use pulsar_native::broker::machine::ConnId;
use pulsar_native::pb::command_ack::AckType;
use pulsar_native::pb::command_subscribe::SubType;
use pulsar_native::pb::{self, MessageIdData};
use pulsar_native::wire::metadata::{NewChunk, NewMetadata};
use pulsar_native::wire::{Command, Frame, SendHead};

use crate::support::{TOPIC, World, connect_command, error_of, id, id_with, subscribe_command};

/// A connection, and `count` messages of producer `p` stored.
fn with_messages(count: u64) -> (World, ConnId) {
    let mut world = World::new();
    let conn = world.connect();
    world.producer(conn, 1);
    for sequence_id in 0..count {
        world.publish(conn, 1, "p", sequence_id, b"x");
    }
    world.receipts(conn);
    (world, conn)
}

/// The same with batches of ten.
fn with_batches(count: u64) -> (World, ConnId) {
    let (mut world, conn) = with_messages(0);
    for batch in 0..count {
        world.publish_batch(conn, 1, "p", batch * 10, 10);
    }
    world.receipts(conn);
    (world, conn)
}

fn permits(world: &World, consumer: usize) -> i64 {
    world.broker.stats(TOPIC).expect("topic").subscriptions["s"].consumers[consumer].available_permits
}

fn backlog(world: &World) -> u64 {
    world.broker.stats(TOPIC).expect("topic").subscriptions["s"].msg_backlog
}

/// Entry and redelivery count of the MESSAGE frames.
fn deliveries(world: &mut World, conn: ConnId) -> Vec<(u64, u32)> {
    world.messages(conn).iter().map(|(head, _)| (head.entry_id, head.redelivery_count)).collect()
}

#[test]
fn an_exclusive_consumer_gets_what_its_permits_allow() {
    let (mut world, conn) = with_messages(5);
    world.consumer(conn, 1, SubType::Exclusive, 2);
    assert_eq!(world.entries(conn), [0, 1]);
    world.flow(conn, 1, 10);
    assert_eq!(world.entries(conn), [2, 3, 4]);
    world.ack(conn, 1, AckType::Cumulative, vec![id(1, 3)]);
    let stats = world.broker.stats(TOPIC).expect("topic");
    assert_eq!((stats.subscriptions["s"].msg_backlog, stats.subscriptions["s"].unacked_messages), (1, 1));
    world.assert_clean();
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
        let (mut world, conn) = with_batches(10);
        world.consumer(conn, 1, sub_type, 0);
        world.advance(Duration::from_secs(1));
        world.take(conn);
        world.flow(conn, 1, flow);
        assert_eq!(world.entries(conn).len(), sent, "{sub_type:?} with {flow}");
        assert_eq!(permits(&world, 0), left, "{sub_type:?} with {flow}");
        world.flow(conn, 1, left.unsigned_abs() as u32);
        assert_eq!(world.entries(conn), [0; 0], "nothing moves at zero");
    }
}

#[test]
fn members_acknowledged_before_are_not_charged() {
    let (mut world, conn) = with_batches(1);
    world.consumer(conn, 1, SubType::Shared, 100);
    world.take(conn);
    world.ack(conn, 1, AckType::Individual, vec![id_with(1, 0, &[0b11_1000_0000])]);
    assert_eq!((backlog(&world), permits(&world, 0)), (3, 90));
    world.redeliver(conn, 1, Vec::new());
    let (head, _) = world.messages(conn).remove(0);
    assert_eq!((head.ack_set, head.redelivery_count), (vec![0b11_1000_0000], 1));
    assert_eq!(permits(&world, 0), 87);
    world.ack(conn, 1, AckType::Individual, vec![id_with(1, 0, &[0])]);
    assert_eq!(backlog(&world), 0);
    world.assert_clean();
}

#[test]
fn without_index_acks_partial_ones_are_ignored() {
    let mut world = World::with(|config| config.batch_index_acknowledgment = false);
    let conn = world.connect();
    world.producer(conn, 1);
    world.publish_batch(conn, 1, "p", 0, 10);
    world.publish_batch(conn, 1, "p", 10, 10);
    world.receipts(conn);
    world.consumer(conn, 1, SubType::Exclusive, 100);
    world.take(conn);
    world.ack(conn, 1, AckType::Individual, vec![id_with(1, 0, &[0])]);
    assert_eq!(backlog(&world), 20);
    world.ack(conn, 1, AckType::Cumulative, vec![id_with(1, 1, &[0b1000])]);
    assert_eq!(backlog(&world), 10, "everything before that entry");
}

#[test]
fn cumulative_acks_take_part_of_a_batch_and_entry_minus_one() {
    let (mut world, conn) = with_batches(2);
    world.consumer(conn, 1, SubType::Exclusive, 100);
    world.take(conn);
    world.ack(conn, 1, AckType::Cumulative, vec![id(1, u64::MAX)]);
    assert_eq!(backlog(&world), 20);
    world.ack(conn, 1, AckType::Cumulative, vec![id_with(1, 1, &[0b11_0000_0000])]);
    assert_eq!(backlog(&world), 2);
    world.assert_clean();
}

#[test]
fn acks_of_what_was_not_delivered_are_noted() {
    let (mut world, conn) = with_messages(3);
    world.consumer(conn, 1, SubType::Shared, 1);
    world.take(conn);
    world.ack_entry(conn, 1, 0);
    world.ack_entry(conn, 1, 0);
    world.assert_clean();
    world.ack_entry(conn, 1, 2);
    world.ack_entry(conn, 1, 99);
    world.ack(conn, 1, AckType::Individual, vec![id(77, 0)]);
    assert_eq!(world.broken(), [Rule::AckNotDelivered; 3]);
    assert_eq!(backlog(&world), 1, "a real broker acknowledges an entry that exists");
}

#[test]
fn acks_that_arrive_after_a_reconnect_are_those_of_the_same_consumer() {
    let (mut world, conn) = with_messages(2);
    let first = world.connect();
    world.consumer(first, 1, SubType::Shared, 10);
    world.take(first);
    world.broker.disconnect(first);
    world.consumer(conn, 1, SubType::Shared, 0);
    world.ack_entry(conn, 1, 1);
    world.assert_clean();
    assert_eq!(backlog(&world), 1);
}

#[test]
fn commands_after_a_close_are_noted() {
    let (mut world, conn) = with_messages(1);
    world.consumer(conn, 1, SubType::Shared, 1);
    world.take(conn);
    world.ask(conn, pb::CommandCloseConsumer { consumer_id: 1, request_id: 1, ..Default::default() });
    world.ack_entry(conn, 1, 0);
    world.flow(conn, 1, 1);
    assert_eq!(world.broken(), [Rule::AfterClose; 2]);
    world.assert_open(conn);
}

#[test]
fn shared_consumers_take_turns_and_hand_on_what_they_leave() {
    let mut world = World::new();
    let (a, b) = (world.connect(), world.connect());
    world.producer(a, 1);
    world.consumer(a, 1, SubType::Shared, 10);
    world.consumer(b, 2, SubType::Shared, 10);
    for sequence_id in 0..4 {
        world.publish(a, 1, "p", sequence_id, b"x");
    }
    let entries = world.entries(b);
    assert_eq!(entries.len(), 2);
    world.broker.disconnect(b);
    let message = |frame| match frame {
        Frame::Message { head, .. } => Some((head.entry_id, head.redelivery_count)),
        _ => None,
    };
    let delivered: Vec<_> = world.take(a).into_iter().filter_map(message).collect();
    assert_eq!(delivered.len(), 4);
    assert!(entries.iter().all(|entry| delivered.contains(&(*entry, 0))), "the count does not grow: {delivered:?}");
    world.assert_clean();
}

#[test]
fn the_next_priority_level_is_served_when_the_first_has_no_permits() {
    let (mut world, conn) = with_messages(0);
    let (low, high) = (world.connect(), world.connect());
    world.consumer_as(low, 1, SubType::Shared, 10, |subscribe| subscribe.priority_level = Some(1));
    world.consumer_as(high, 2, SubType::Shared, 3, |subscribe| subscribe.priority_level = Some(0));
    for sequence_id in 0..5 {
        world.publish(conn, 1, "p", sequence_id, b"x");
    }
    assert_eq!((world.entries(high), world.entries(low)), (vec![0, 1, 2], vec![3, 4]));
}

#[test]
fn nacked_entries_come_back_counted_and_charged() {
    let (mut world, conn) = with_messages(3);
    world.consumer(conn, 1, SubType::Shared, 4);
    assert_eq!(deliveries(&mut world, conn), [(0, 0), (1, 0), (2, 0)]);
    world.ack_entry(conn, 1, 0);
    world.redeliver(conn, 1, vec![id(1, 0), id(1, 2), id(5, 5)]);
    assert_eq!(deliveries(&mut world, conn), [(2, 1)], "acknowledged and unknown ids are skipped");
    world.redeliver(conn, 1, vec![id(1, 2)]);
    assert_eq!(deliveries(&mut world, conn), [], "no permits left");
    world.flow(conn, 1, 5);
    assert_eq!(deliveries(&mut world, conn), [(2, 2)]);
    world.redeliver(conn, 1, Vec::new());
    assert_eq!(deliveries(&mut world, conn), [(1, 1), (2, 3)]);
}

#[test]
fn an_exclusive_redelivery_rewinds_without_a_count_and_stamps_the_epoch() {
    let (mut world, conn) = with_messages(4);
    world.consumer_as(conn, 1, SubType::Exclusive, 100, |subscribe| subscribe.consumer_epoch = Some(0));
    assert_eq!(world.entries(conn).len(), 4);
    world.ack_entry(conn, 1, 0);
    world.ack_entry(conn, 1, 2);
    let redeliver = |epoch| pb::CommandRedeliverUnacknowledgedMessages {
        consumer_id: 1,
        message_ids: vec![id(1, 3)],
        consumer_epoch: epoch,
    };
    for (epoch, stamped) in [(Some(1), 1), (None, 1), (Some(0), 1), (Some(7), 7)] {
        world.send(conn, redeliver(epoch));
        let messages = world.messages(conn);
        let heads: Vec<_> = messages.iter().map(|(h, _)| (h.entry_id, h.redelivery_count, h.consumer_epoch)).collect();
        assert_eq!(heads, [(1, 0, Some(stamped)), (3, 0, Some(stamped))]);
    }
}

#[test]
fn delivery_stops_at_the_limit_of_unacked_messages_and_goes_on_at_half() {
    let mut world = World::with(|config| config.unacked_messages_max = 5);
    let conn = world.connect();
    world.producer(conn, 1);
    for sequence_id in 0..10 {
        world.publish(conn, 1, "p", sequence_id, b"x");
    }
    world.receipts(conn);
    world.consumer(conn, 1, SubType::Shared, 100);
    assert_eq!(world.entries(conn), [0, 1, 2, 3, 4]);
    world.ack(conn, 1, AckType::Individual, vec![id(1, 0), id(1, 1)]);
    assert_eq!(world.entries(conn), [0; 0], "three are left, more than half");
    world.ack_entry(conn, 1, 2);
    assert_eq!(world.entries(conn), [5, 6, 7]);
}

#[test]
fn delayed_messages_wait_on_shared_and_only_there() {
    for (sub_type, waits) in [(SubType::Shared, true), (SubType::KeyShared, true), (SubType::Exclusive, false)] {
        let (mut world, conn) = with_messages(0);
        world.consumer(conn, 1, sub_type, 10);
        let metadata = NewMetadata {
            producer_name: "p",
            deliver_at_time_ms: Some(world.now.wall_ms as i64 + 1_000),
            ..Default::default()
        };
        world.publish_metadata(conn, &SendHead::new(1, 0), &metadata, b"late");
        assert_eq!(world.take(conn).len(), if waits { 1 } else { 2 }, "{sub_type:?}");
        world.advance(Duration::from_millis(999));
        assert_eq!(world.take(conn), []);
        world.advance(Duration::from_millis(1));
        assert_eq!(world.entries(conn).len(), usize::from(waits), "{sub_type:?}");
    }
}

#[test]
fn each_delayed_message_has_its_own_time() {
    let (mut world, conn) = with_messages(0);
    world.consumer(conn, 1, SubType::Shared, 10);
    for (sequence_id, delay_ms) in [(0, 10), (1, 30), (2, 20), (3, 5)] {
        let deliver_at_time_ms = Some(world.now.wall_ms as i64 + delay_ms);
        let metadata = NewMetadata { producer_name: "p", sequence_id, deliver_at_time_ms, ..Default::default() };
        world.publish_metadata(conn, &SendHead::new(1, sequence_id), &metadata, b"late");
    }
    world.receipts(conn);
    for expected in [3, 0, 2, 1] {
        let due = world.broker.poll_deadline().expect("a timer").at;
        world.advance(due.saturating_duration_since(world.now.at));
        assert_eq!(world.entries(conn), [expected]);
    }
}

#[test]
fn all_chunks_of_a_message_go_to_one_shared_consumer() {
    let (mut world, conn) = with_messages(0);
    let (a, b) = (world.connect(), world.connect());
    world.consumer(a, 1, SubType::Shared, 100);
    world.consumer(b, 2, SubType::Shared, 100);
    for (uuid, sequence_id) in [("p-0", 0), ("p-1", 1)] {
        for chunk_id in 0..3 {
            let chunk = NewChunk { uuid, num_chunks: 3, total_bytes: 9, chunk_id };
            let metadata = NewMetadata { producer_name: "p", sequence_id, chunk: Some(chunk), ..Default::default() };
            let head = SendHead { is_chunk: true, ..SendHead::new(1, sequence_id) };
            world.publish_metadata(conn, &head, &metadata, b"abc");
        }
    }
    let mut both = [world.entries(a), world.entries(b)];
    both.sort();
    assert_eq!(both, [vec![0, 1, 2], vec![3, 4, 5]]);
    world.assert_clean();
}

#[test]
fn a_full_connection_holds_deliveries_back_until_it_is_read() {
    let mut world = World::with(|config| config.tx_bytes_max = 4_000);
    let (conn, slow) = (world.connect(), world.connect());
    world.producer(conn, 1);
    world.consumer(slow, 1, SubType::Exclusive, 1_000);
    for sequence_id in 0..100 {
        world.publish(conn, 1, "p", sequence_id, &[0; 1_000]);
    }
    let mut read = Vec::new();
    loop {
        let bytes = world.take_bytes(slow);
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
    let (mut world, conn) = with_messages(5);
    world.consumer_as(conn, 1, SubType::Exclusive, 100, |subscribe| {
        subscribe.durable = Some(false);
        subscribe.start_message_id = start;
        subscribe.initial_position = Some(position);
    });
    world.entries(conn)
}

#[test]
fn non_durable_subscriptions_start_by_the_table() {
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
fn a_non_durable_subscription_goes_with_its_consumer_but_not_with_a_seek() {
    let (mut world, conn) = with_messages(3);
    let reader = |subscribe: &mut pb::CommandSubscribe| subscribe.durable = Some(false);
    world.consumer_as(conn, 1, SubType::Exclusive, 10, reader);
    world.take(conn);
    let seek = pb::CommandSeek { consumer_id: 1, request_id: 1, message_id: Some(id(1, 2)), ..Default::default() };
    world.send(conn, seek);
    world.take(conn);
    world.consumer_as(conn, 1, SubType::Exclusive, 10, reader);
    assert_eq!(world.entries(conn), [2], "joined as it is");
    world.ask(conn, pb::CommandCloseConsumer { consumer_id: 1, request_id: 2, ..Default::default() });
    assert!(world.broker.stats(TOPIC).unwrap().subscriptions.is_empty());
}

#[test]
fn seek_goes_by_id_or_time_and_disconnects_everybody() {
    let mut world = World::new();
    let (conn, other) = (world.connect(), world.connect());
    world.producer(conn, 1);
    for sequence_id in 0..5 {
        world.publish(conn, 1, "p", sequence_id, b"x");
        world.advance(Duration::from_millis(10));
    }
    world.receipts(conn);
    let started = world.now.wall_ms - 50;
    let latest = id(i64::MAX as u64, i64::MAX as u64);
    for (message_id, time, expected) in [
        (Some(id(u64::MAX, u64::MAX)), None, vec![0, 1, 2, 3, 4]),
        (Some(id(1, 3)), Some(0), vec![3, 4]),
        (Some(latest), None, vec![]),
        (None, Some(0), vec![0, 1, 2, 3, 4]),
        (None, Some(started + 20), vec![2, 3, 4]),
        (None, Some(u64::MAX), vec![]),
    ] {
        world.consumer(conn, 1, SubType::Shared, 0);
        world.consumer(other, 2, SubType::Shared, 0);
        let seek = pb::CommandSeek { consumer_id: 1, request_id: 7, message_id, message_publish_time: time };
        world.send(conn, seek);
        let seeker = world.take(conn);
        assert!(matches!(&seeker[0], Frame::Other(Command::CloseConsumer(_))), "{seeker:?}");
        assert!(matches!(&seeker[1], Frame::Other(Command::Success(success)) if success.request_id == 7));
        assert!(matches!(world.answer(other), Command::CloseConsumer(_)));
        world.consumer(conn, 1, SubType::Shared, 100);
        assert_eq!(world.entries(conn), expected);
        world.ask(conn, pb::CommandCloseConsumer { consumer_id: 1, request_id: 8, ..Default::default() });
    }
    world.assert_clean();
}

#[test]
fn unsubscribe_with_force_closes_the_others() {
    let mut world = World::new();
    let (a, b) = (world.connect(), world.connect());
    world.consumer(a, 1, SubType::Shared, 0);
    world.consumer(b, 2, SubType::Shared, 0);
    let answer = world.ask(a, pb::CommandUnsubscribe { consumer_id: 1, request_id: 1, force: Some(true) });
    assert!(matches!(answer, Command::Success(_)));
    assert!(matches!(world.answer(b), Command::CloseConsumer(_)));
    assert!(world.broker.stats(TOPIC).unwrap().subscriptions.is_empty());
}

#[test]
fn failover_hands_over_after_a_second_and_from_the_first_unacked() {
    let (mut world, conn) = with_messages(3);
    let (a, b) = (world.connect(), world.connect());
    let named = |name: &'static str, level| {
        move |subscribe: &mut pb::CommandSubscribe| {
            subscribe.consumer_name = Some(name.to_owned());
            subscribe.priority_level = Some(level);
        }
    };
    world.consumer_as(a, 1, SubType::Failover, 10, named("a", 1));
    assert_eq!(world.take(a), [], "not before the delay");
    world.advance(Duration::from_secs(1));
    assert_eq!(world.take(a).len(), 4, "the notice and three messages");
    world.ack_entry(a, 1, 0);
    world.consumer_as(b, 2, SubType::Failover, 10, named("b", 0));
    world.publish(conn, 1, "p", 3, b"x");
    world.advance(Duration::from_millis(999));
    assert_eq!((world.take(a), world.take(b)), (vec![], vec![]));
    world.advance(Duration::from_millis(1));
    assert!(matches!(world.answer(a), Command::ActiveConsumerChange(change) if change.is_active == Some(false)));
    let frames = world.take(b);
    assert!(
        matches!(&frames[0], Frame::Other(Command::ActiveConsumerChange(change)) if change.is_active == Some(true))
    );
    assert_eq!(frames.len(), 4, "entries 1, 2, 3: {frames:?}");
    // Leaving the active one brings the other back.
    world.broker.disconnect(b);
    world.advance(Duration::from_secs(1));
    assert_eq!(world.take(a).len(), 4);
    world.assert_clean();
}

#[test]
fn a_non_persistent_topic_delivers_now_or_never() {
    let topic = "non-persistent://public/default/n";
    let mut world = World::new();
    let conn = world.connect();
    world.producer_on(conn, 1, topic);
    let on_topic = |subscribe: &mut pb::CommandSubscribe| subscribe.topic = topic.to_owned();
    world.publish(conn, 1, "p", 0, b"nobody is there");
    world.receipts(conn);
    world.consumer_as(conn, 1, SubType::Shared, 1, on_topic);
    for sequence_id in 1..4 {
        world.publish(conn, 1, "p", sequence_id, b"x");
    }
    let frames = world.take(conn);
    let receipts = frames.iter().filter(|f| matches!(f, Frame::Receipt(r) if (r.ledger_id, r.entry_id) == (0, 0)));
    assert_eq!(receipts.count(), 3);
    assert_eq!(
        frames.iter().filter(|frame| matches!(frame, Frame::Message { .. })).count(),
        1,
        "one permit, one message"
    );
    let answer = world.ask(conn, pb::CommandGetLastMessageId { consumer_id: 1, request_id: 1 });
    assert_eq!(error_of(&answer).0, pb::ServerError::UnknownError);
    let seek = pb::CommandSeek { consumer_id: 1, request_id: 2, message_id: Some(id(0, 0)), ..Default::default() };
    assert!(matches!(world.ask(conn, seek), Command::Success(_)), "and the consumer stays");
    assert_eq!(world.broker.stats(topic).map(|stats| (stats.entries, stats.msg_in_counter)), Some((0, 4)));
}

#[test]
fn a_silent_exclusive_consumer_loses_its_subscription_to_the_next() {
    let mut world = World::new();
    let (a, b) = (world.connect(), world.connect_as(connect_command(20)));
    world.consumer(a, 1, SubType::Exclusive, 0);
    world.send(b, subscribe_command(9, 1, SubType::Exclusive));
    assert_eq!(world.take(b), []);
    world.advance(Duration::from_secs(5));
    assert!(matches!(world.answer(b), Command::Success(success) if success.request_id == 9));
}

#[test]
fn the_end_of_a_topic_is_told_after_the_first_flow_to_who_starts_there() {
    let (mut world, conn) = with_messages(1);
    world.broker.terminate(TOPIC);
    world.take(conn);
    world.consumer_as(conn, 1, SubType::Exclusive, 0, |subscribe| subscribe.initial_position = Some(0));
    assert_eq!(world.take(conn), []);
    world.flow(conn, 1, 1);
    assert!(matches!(world.answer(conn), Command::ReachedEndOfTopic(_)));
    world.flow(conn, 1, 1);
    assert_eq!(world.take(conn), [], "once");
}
