//! SUBSCRIBE, FLOW, MESSAGE, ACK.

use pulsar_native::pb::command_ack::AckType;
use pulsar_native::pb::command_subscribe::SubType;

use crate::support::{TOPIC, World, id};

#[test]
fn an_exclusive_consumer_gets_what_its_permits_allow() {
    let mut world = World::new();
    let conn = world.connect();
    world.producer(conn, 1);
    for sequence_id in 0..5 {
        world.publish(conn, 1, "p", sequence_id, b"x");
    }
    world.receipts(conn);
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
    let redelivered: Vec<_> = world
        .take(a)
        .into_iter()
        .filter_map(|frame| match frame {
            pulsar_native::wire::Frame::Message { head, .. } => Some((head.entry_id, head.redelivery_count)),
            _ => None,
        })
        .collect();
    assert_eq!(redelivered.len(), 4);
    assert!(entries.iter().all(|entry| redelivered.contains(&(*entry, 0))), "{redelivered:?}");
    world.assert_clean();
}
