//! Reconnect, schemas, transactions, topic watch, migration.

use pulsar_native::pb;
use pulsar_native::pb::command_subscribe::SubType;
use pulsar_native::wire::SendHead;

use super::{PRODUCER, metadata};
use crate::book::frames::{Blocks, Exchange, frame, send_frame};
use crate::support::{TOPIC, producer_command};

pub(super) fn blocks(blocks: &mut Blocks) {
    topic_that_moves(blocks);
    blocks.vector("assigned", "broker", "broker408_transfer_close_producer");

    blocks.vector("producer-with-schema", "client", "captured_producer_05");
    blocks.vector("schema-version", "broker", "broker408_producer_success_schema_version");
    let ask = pb::CommandGetSchema {
        request_id: 113,
        topic: "persistent://public/default/sc-426200-1".to_owned(),
        schema_version: Some(1_u64.to_be_bytes().to_vec().into()),
    };
    blocks.add("get-schema", "client", &frame(ask));
    blocks.vector("get-schema", "broker", "broker408_get_schema_response");

    transaction(blocks);
    topic_watch(blocks);
    migration(blocks);
}

/// With deduplication: the message was stored, its receipt was lost, and it is sent again.
fn topic_that_moves(blocks: &mut Blocks) {
    let mut exchange = Exchange::with(blocks, |config| config.broker_deduplication_enabled = true);
    let conn = exchange.conn;
    exchange.harness.look_up(conn, TOPIC);
    let open = pb::CommandProducer { epoch: Some(0), ..producer_command(4, 1, TOPIC) };
    exchange.harness.ask(conn, open.clone());
    let message = send_frame(&SendHead::new(1, 0), &metadata(0), b"hello");
    exchange.harness.send_bytes(conn, &message);
    exchange.skip();
    exchange.harness.broker.unload(TOPIC);
    exchange.broker(["moved"]);
    exchange.harness.look_up(conn, TOPIC);
    exchange.client("reopened", &frame(pb::CommandProducer { epoch: Some(1), request_id: 6, ..open }));
    exchange.broker(["reopened"]);
    exchange.client("sent-again", &message);
    exchange.broker(["sent-again-receipt"]);
    exchange.harness.assert_clean();
}

fn transaction(blocks: &mut Blocks) {
    blocks.vector("tc-connect", "client", "tc_client_connect");
    blocks.vector("new-txn", "client", "new_txn");
    blocks.vector("new-txn", "coordinator", "new_txn_response");
    let join = pb::CommandAddPartitionToTxn {
        request_id: 15,
        txnid_least_bits: Some(4),
        txnid_most_bits: Some(1),
        partitions: vec!["persistent://public/default/t".to_owned()],
    };
    blocks.add("add-partition", "client", &frame(join));
    blocks.vector("send-in-txn", "client", "send_in_txn");
    blocks.vector("ack-in-txn", "client", "ack_in_txn");
    blocks.vector("end-txn", "client", "end_txn_commit");
}

fn topic_watch(blocks: &mut Blocks) {
    let mut exchange = Exchange::new(blocks);
    exchange.harness.broker.create_topic("persistent://public/default/a1");
    let watch = pb::CommandWatchTopicList {
        request_id: 10,
        watcher_id: 3,
        namespace: "public/default".to_owned(),
        topics_pattern: "public/default/a.*".to_owned(),
        topics_hash: None,
    };
    exchange.client("watch", &frame(watch));
    exchange.broker(["watch"]);
    exchange.harness.broker.create_topic("persistent://public/default/a2");
    exchange.broker(["watch-update"]);
    exchange.blocks.vector("topics-unchanged", "client", "get_topics_of_namespace");
    exchange.blocks.vector("topics-unchanged", "broker", "broker408_get_topics_response_unchanged");
}

fn migration(blocks: &mut Blocks) {
    let mut exchange = Exchange::new(blocks);
    let conn = exchange.conn;
    exchange.harness.producer(conn, 1);
    exchange.harness.publish(conn, 1, PRODUCER, 0, b"hello");
    exchange.skip();
    exchange.harness.consumer(conn, 1, SubType::Shared, 1000);
    exchange.skip();
    exchange.harness.broker.migrate(Some("pulsar://blue.example:6650"), None);
    exchange.broker(["migrated", "migrated"]);
    exchange.harness.ack_entry(conn, 1, 0);
    exchange.broker(["migrated-consumer", "migrated-consumer"]);
}
