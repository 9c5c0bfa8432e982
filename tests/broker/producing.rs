//! PRODUCER, SEND, receipts.

use pulsar_native::broker::Rule;
use pulsar_native::pb;
use pulsar_native::wire::SendHead;

use crate::support::{TOPIC, World};

#[test]
fn messages_are_receipted_in_order_with_ids_of_one_ledger() {
    let mut world = World::new();
    let conn = world.connect();
    let success = world.producer(conn, 1);
    assert_eq!((success.last_sequence_id, success.producer_ready), (Some(-1), Some(true)));
    for sequence_id in 0..3 {
        world.publish(conn, 1, "p", sequence_id, b"hello");
    }
    let receipts = world.receipts(conn);
    assert_eq!(
        receipts.iter().map(|r| (r.sequence_id, r.ledger_id, r.entry_id)).collect::<Vec<_>>(),
        [(0, 1, 0), (1, 1, 1), (2, 1, 2)]
    );
    assert!(receipts.iter().all(|receipt| receipt.highest_sequence_id == u64::MAX));
    world.assert_clean();
}

#[test]
fn a_send_for_an_unknown_producer_closes() {
    let mut world = World::new();
    let conn = world.connect();
    world.publish_entry(conn, &SendHead::new(7, 0), b"\0\0\0\0");
    world.assert_closed(conn);
    assert_eq!(world.broken(), [Rule::SendWithoutProducer]);
}

#[test]
fn close_producer_is_a_success_also_for_unknown_ids() {
    let mut world = World::new();
    let conn = world.connect();
    let close = pb::CommandCloseProducer { producer_id: 5, request_id: 9, ..Default::default() };
    let pulsar_native::wire::Command::Success(success) = world.ask(conn, close) else { panic!("no SUCCESS") };
    assert_eq!(success.request_id, 9);
    assert!(world.broker.stats(TOPIC).is_none());
}
