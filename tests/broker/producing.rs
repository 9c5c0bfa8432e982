//! PRODUCER, SEND, receipts: names, epochs, access modes, deduplication, retention, violations.

use std::time::Duration;

use bytes::BytesMut;
use pulsar_native::broker::Rule;
use pulsar_native::broker::machine::ConnId;
use pulsar_native::pb::command_subscribe::SubType;
use pulsar_native::pb::{self, ProducerAccessMode, ServerError};
use pulsar_native::wire::entry::put_entry;
use pulsar_native::wire::metadata::{ChunkFields, MetadataFields};
use pulsar_native::wire::{Command, SendHead};

use crate::support::{BrokerHarness, TOPIC, error_of, id, producer_command, subscribe_command};

fn with_mode(id: u64, mode: ProducerAccessMode, topic_epoch: Option<u64>) -> pb::CommandProducer {
    pb::CommandProducer {
        producer_name: Some(format!("p{id}")),
        producer_access_mode: Some(mode.into()),
        topic_epoch,
        ..producer_command(id, id, TOPIC)
    }
}

/// Topic epoch and readiness, or the error.
fn outcome(answer: &Command) -> Result<(Option<u64>, bool), ServerError> {
    match answer {
        Command::ProducerSuccess(success) => Ok((success.topic_epoch, success.producer_ready())),
        other => Err(error_of(other).0),
    }
}

fn close(producer_id: u64) -> pb::CommandCloseProducer {
    pb::CommandCloseProducer { producer_id, request_id: 1, ..Default::default() }
}

fn with_lookup() -> (BrokerHarness, ConnId) {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.look_up(conn, TOPIC);
    (harness, conn)
}

#[test]
fn messages_are_receipted_in_order_with_ids_of_one_ledger() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    let success = harness.producer(conn, 1);
    assert_eq!((success.last_sequence_id, success.producer_ready), (Some(-1), Some(true)));
    for sequence_id in 0..3 {
        harness.publish(conn, 1, "p", sequence_id, b"hello");
    }
    let receipts = harness.receipts(conn);
    let ids: Vec<_> = receipts.iter().map(|r| (r.sequence_id, r.ledger_id, r.entry_id)).collect();
    assert_eq!(ids, [(0, 1, 0), (1, 1, 1), (2, 1, 2)]);
    assert!(receipts.iter().all(|receipt| receipt.highest_sequence_id == u64::MAX));
    harness.assert_clean();
}

#[test]
fn an_absent_name_is_generated_and_an_empty_one_is_a_name() {
    let (mut harness, conn) = with_lookup();
    let unnamed = pb::CommandProducer { producer_name: None, ..producer_command(1, 1, TOPIC) };
    let Command::ProducerSuccess(success) = harness.ask(conn, unnamed) else { panic!("no PRODUCER_SUCCESS") };
    assert_eq!(success.producer_name, "standalone-0-1");
    let empty = pb::CommandProducer { producer_name: Some(String::new()), ..producer_command(2, 2, TOPIC) };
    let Command::ProducerSuccess(success) = harness.ask(conn, empty) else { panic!("no PRODUCER_SUCCESS") };
    assert_eq!(success.producer_name, "");
}

#[test]
fn access_modes() {
    use ProducerAccessMode::{Exclusive, ExclusiveWithFencing, Shared, WaitForExclusive};
    let (mut harness, conn) = with_lookup();
    let mut ask = |id, mode, epoch| outcome(&harness.ask(conn, with_mode(id, mode, epoch)));
    assert_eq!(ask(1, Shared, None), Ok((None, true)));
    assert_eq!(ask(2, Shared, None), Ok((None, true)));
    assert_eq!(ask(3, Exclusive, None), Err(ServerError::ProducerFenced));
    assert_eq!(ask(4, WaitForExclusive, None), Ok((None, false)));
    assert_eq!(ask(4, WaitForExclusive, None), Err(ServerError::ServiceNotReady), "the same again");
    assert_eq!(ask(5, Shared, None), Err(ServerError::ProducerBusy), "while others wait");
    assert_eq!(ask(6, Exclusive, None), Err(ServerError::ProducerFenced), "while others wait");

    harness.send(conn, with_mode(7, ExclusiveWithFencing, None));
    let answers = harness.take(conn);
    assert_eq!(answers.len(), 2, "the waiter is refused, the new one granted: {answers:?}");
    let mut ask = |id, mode, epoch| outcome(&harness.ask(conn, with_mode(id, mode, epoch)));
    assert_eq!(ask(8, Shared, None), Err(ServerError::ProducerBusy));
    assert_eq!(ask(9, Exclusive, None), Err(ServerError::ProducerFenced));
    assert_eq!(ask(10, ExclusiveWithFencing, None), Ok((Some(1), true)));
    assert_eq!(ask(11, ExclusiveWithFencing, Some(0)), Err(ServerError::ProducerFenced), "an old epoch");
    harness.ask(conn, close(10));
    let mut ask = |id, mode, epoch| outcome(&harness.ask(conn, with_mode(id, mode, epoch)));
    assert_eq!(ask(12, Exclusive, Some(9)), Ok((Some(9), true)), "a higher epoch is taken as it is");
    harness.ask(conn, close(12));
    assert_eq!(outcome(&harness.ask(conn, with_mode(13, Exclusive, None))), Ok((Some(10), true)));
}

#[test]
fn waiters_are_served_in_order_of_arrival() {
    use ProducerAccessMode::{Exclusive, WaitForExclusive};
    let (mut harness, conn) = with_lookup();
    let (first, second) = (harness.connect(), harness.connect());
    harness.ask(conn, with_mode(1, Exclusive, None));
    assert_eq!(outcome(&harness.ask(first, with_mode(2, WaitForExclusive, None))), Ok((None, false)));
    assert_eq!(outcome(&harness.ask(second, with_mode(3, WaitForExclusive, None))), Ok((None, false)));
    harness.broker.disconnect(conn);
    assert_eq!(outcome(&harness.answer(first)), Ok((Some(1), true)));
    assert_eq!(harness.take(second), []);
    harness.ask(first, close(2));
    assert_eq!(outcome(&harness.answer(second)), Ok((Some(2), true)));
}

#[test]
fn a_further_producer_command_has_to_carry_a_higher_epoch() {
    let (mut harness, conn) = with_lookup();
    let named = |epoch, chosen| pb::CommandProducer {
        epoch: Some(epoch),
        user_provided_producer_name: Some(chosen),
        ..producer_command(1, 1, TOPIC)
    };
    for (epoch, chosen, noted) in
        [(0, true, false), (1, true, false), (1, true, true), (2, false, false), (0, true, false), (0, false, true)]
    {
        harness.ask(conn, named(epoch, chosen));
        harness.ask(conn, close(1));
        assert_eq!(harness.broken() == [Rule::EpochNotGrowing], noted, "epoch {epoch}, chosen {chosen}");
    }
}

#[test]
fn ids_that_do_not_grow_are_violations_unless_the_bytes_are_the_same() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.producer(conn, 1);
    harness.publish(conn, 1, "p", 5, b"x");
    harness.publish(conn, 1, "p", 5, b"x");
    harness.assert_clean();
    harness.publish(conn, 1, "p", 5, b"y");
    harness.publish(conn, 1, "p", 4, b"x");
    assert_eq!(harness.receipts(conn).len(), 4, "a real broker stores them all");
    assert_eq!(harness.broken(), [Rule::SequenceNotGrowing; 2]);
}

/// An application that starts again sends what it is not sure of once more, with the ids it has chosen.
#[test]
fn ids_that_deduplication_drops_are_no_violations() {
    let mut harness = BrokerHarness::with(|config| config.broker_deduplication_enabled = true);
    let conn = harness.connect();
    harness.producer(conn, 1);
    harness.publish(conn, 1, "p", 5, b"x");
    harness.publish(conn, 1, "p", 5, b"y");
    harness.publish(conn, 1, "p", 4, b"x");
    harness.assert_clean();
}

#[test]
fn metadata_that_disagrees_with_its_send_is_stored_and_is_a_violation() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.producer(conn, 1);
    let metadata = MetadataFields { producer_name: "q", sequence_id: 0, ..Default::default() };
    harness.publish_metadata(conn, &SendHead::new(1, 0), &metadata, b"x");
    let metadata = MetadataFields { producer_name: "p", sequence_id: 2, ..Default::default() };
    harness.publish_metadata(conn, &SendHead::new(1, 1), &metadata, b"x");
    let metadata = MetadataFields { producer_name: "p", sequence_id: 2, ..Default::default() };
    harness.publish_metadata(conn, &SendHead { num_messages: 0, ..SendHead::new(1, 2) }, &metadata, b"x");
    assert_eq!(harness.receipts(conn).len(), 3);
    assert_eq!(harness.broken(), [Rule::MetadataMismatch; 3]);
}

#[test]
fn deduplication_drops_what_is_not_above_the_highest_stored() {
    let mut harness = BrokerHarness::with(|config| config.broker_deduplication_enabled = true);
    let conn = harness.connect();
    harness.producer(conn, 1);
    harness.publish_batch(conn, 1, "p", 20, 3);
    harness.publish(conn, 1, "p", 21, b"inside the batch");
    harness.publish(conn, 1, "p", 23, b"above it");
    let entries: Vec<_> = harness.receipts(conn).iter().map(|receipt| receipt.entry_id).collect();
    assert_eq!(entries, [0, u64::MAX, 1]);
    harness.broken();

    // Only the last chunk of a message is checked and recorded.
    for _ in 0..2 {
        for chunk_id in 0..2 {
            let chunk = ChunkFields { uuid: "p-30", num_chunks: 2, total_bytes: 2, chunk_id };
            let metadata =
                MetadataFields { producer_name: "p", sequence_id: 30, chunk: Some(chunk), ..Default::default() };
            harness.publish_metadata(conn, &SendHead { is_chunk: true, ..SendHead::new(1, 30) }, &metadata, b"x");
        }
    }
    let entries: Vec<_> = harness.receipts(conn).iter().map(|receipt| receipt.entry_id).collect();
    assert_eq!(entries, [2, 3, 4, u64::MAX]);

    harness.publish_entry(conn, &SendHead { is_chunk: true, ..SendHead::new(1, 31) }, b"\0\0\0\x02\xff\xff");
    harness.assert_closed(conn);
}

#[test]
fn a_full_store_drops_acknowledged_entries_then_closes_producers() {
    let publish_time_ms = BrokerHarness::new().now.wall_ms;
    let mut entry = BytesMut::new();
    put_entry(&mut entry, &MetadataFields { producer_name: "p", publish_time_ms, ..Default::default() }, &[0; 100]);
    let room = entry.len() * 3;
    let mut harness = BrokerHarness::with(|config| config.max_stored_bytes = room);
    let (conn, other) = (harness.connect(), harness.connect());
    harness.producer(conn, 1);
    harness.consumer(other, 1, SubType::Exclusive, 100);
    for sequence_id in 0..3 {
        harness.publish(conn, 1, "p", sequence_id, &[0; 100]);
    }
    harness.receipts(conn);
    harness.messages(other);
    harness.ack_entry(other, 1, 0);
    harness.publish(conn, 1, "p", 3, &[0; 100]);
    assert_eq!(harness.receipts(conn).len(), 1, "one entry was acknowledged and makes room");
    assert_eq!(harness.broker.stats(TOPIC).unwrap().entries, 3);

    harness.publish(conn, 1, "p", 4, &[0; 100]);
    assert!(matches!(harness.answer(conn), Command::CloseProducer(_)));
    let again = || pb::CommandProducer { epoch: Some(1), ..producer_command(9, 1, TOPIC) };
    let answer = harness.ask(conn, again());
    assert_eq!(error_of(&answer).0, ServerError::ProducerBlockedQuotaExceededException);
    harness.messages(other);
    harness.ack(other, 1, pb::command_ack::AckType::Cumulative, vec![id(1, 3)]);
    let again = pb::CommandProducer { epoch: Some(2), ..again() };
    assert!(matches!(harness.ask(conn, again), Command::ProducerSuccess(_)));
    harness.publish(conn, 1, "p", 4, &[0; 100]);
    assert_eq!(harness.receipts(conn)[0].entry_id, 4);
    harness.assert_clean();
}

#[test]
fn an_unloaded_topic_continues_in_another_ledger_with_its_subscriptions() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.producer(conn, 1);
    harness.publish(conn, 1, "p", 0, b"x");
    harness.receipts(conn);
    harness.consumer(conn, 1, SubType::Exclusive, 1);
    harness.take(conn);
    harness.broker.unload(TOPIC);
    harness.take(conn);
    harness.look_up(conn, TOPIC);
    harness.ask(conn, pb::CommandProducer { epoch: Some(1), ..producer_command(9, 1, TOPIC) });
    harness.publish(conn, 1, "p", 1, b"y");
    let receipt = harness.receipts(conn)[0];
    assert_eq!((receipt.ledger_id, receipt.entry_id), (2, 0));
    harness.consumer(conn, 1, SubType::Exclusive, 10);
    let ids: Vec<_> = harness.messages(conn).iter().map(|(head, _)| (head.ledger_id, head.entry_id)).collect();
    assert_eq!(ids, [(1, 0), (2, 0)], "what was not acknowledged comes again");
    harness.advance(Duration::from_secs(1));
    harness.assert_clean();
}

#[test]
fn an_initial_subscription_has_every_message() {
    let (mut harness, conn) = with_lookup();
    let command =
        pb::CommandProducer { initial_subscription_name: Some("s".to_owned()), ..producer_command(1, 1, TOPIC) };
    harness.ask(conn, command);
    harness.publish(conn, 1, "p", 0, b"x");
    harness.receipts(conn);
    assert_eq!(harness.broker.stats(TOPIC).unwrap().subscriptions["s"].msg_backlog, 1);
}

#[test]
fn initial_subscriptions_are_bounded_like_others() {
    let (mut harness, conn) = with_lookup();
    let with_initial = |id: u64| pb::CommandProducer {
        producer_name: Some(format!("p{id}")),
        initial_subscription_name: Some(format!("s{id}")),
        ..producer_command(id, id, TOPIC)
    };
    for id in 0..10_000 {
        harness.send(conn, with_initial(id));
        harness.send(conn, pb::CommandCloseProducer { producer_id: id, request_id: id, ..Default::default() });
    }
    harness.take(conn);
    assert_eq!(error_of(&harness.ask(conn, with_initial(10_000))).0, ServerError::NotAllowedError);
    let again = pb::CommandProducer { initial_subscription_name: Some("s0".to_owned()), ..with_initial(10_001) };
    assert!(matches!(harness.ask(conn, again), Command::ProducerSuccess(_)));
    assert_eq!(harness.broker.stats(TOPIC).unwrap().subscriptions.len(), 10_000);
}

#[test]
fn one_topic_too_many_is_refused_as_in_a_full_namespace() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    for number in 0..10 {
        assert!(harness.broker.create_partitioned_topic(&format!("full-{number}"), 10_000));
    }
    assert!(!harness.broker.create_topic("new") && !harness.broker.create_partitioned_topic("new", 1));
    let (new, beyond) = ("persistent://public/default/new", "persistent://public/default/full-0-partition-10000");
    harness.look_up(conn, new);
    harness.look_up(conn, beyond);
    let subscribe = |topic: &str, creates| pb::CommandSubscribe {
        topic: topic.to_owned(),
        force_topic_creation: Some(creates),
        ..subscribe_command(3, 3, SubType::Exclusive)
    };
    let full = ServerError::NotAllowedError;
    for (request, expected) in [
        (Command::from(producer_command(2, 2, new)), full),
        (subscribe(new, true).into(), full),
        (subscribe(new, false).into(), ServerError::TopicNotFound),
        (producer_command(2, 2, beyond).into(), ServerError::TopicNotFound),
    ] {
        let answer = harness.ask(conn, request);
        let (code, text) = error_of(&answer);
        assert_eq!(code, expected, "{text}");
        assert_eq!(text.contains("holds 100000") && text.contains("maxTopicsPerNamespace"), code == full, "{text}");
    }
    harness.broker.delete_topic("full-9");
    harness.producer_on(conn, 2, new);
    harness.assert_clean();
}
