//! Flow, acknowledgement, redelivery.

use pulsar_native::pb::command_ack::AckType;
use pulsar_native::pb::command_subscribe::SubType;
use pulsar_native::pb::{self, MessageIdData};

use super::PRODUCER;
use crate::book::frames::{Blocks, Exchange, frame};
use crate::support::{TOPIC, id, id_with, subscribe_command};

pub(super) fn blocks(blocks: &mut Blocks) {
    flow(blocks);
    blocks.vector("sticky", "client", "subscribe_key_shared_sticky");
    blocks.vector("active", "broker", "broker408_active_consumer_change_true");
    blocks.vector("end-of-topic", "broker", "broker408_reached_end_of_topic");
    acknowledgement(blocks);
    blocks.vector("ack-validation-error", "client", "ack_validation_error");
    redelivery(blocks);
    blocks.vector("redeliver-all", "client", "redeliver_all_epoch");
    blocks.vector("redeliver-all", "broker", "broker408_message_with_consumer_epoch");
    seek(blocks);
    blocks.vector("last-message-id", "client", "get_last_message_id");
    blocks.vector("last-message-id", "broker", "get_last_message_id_response_batch");
}

fn subscribe(consumer_id: u64, sub_type: SubType) -> pb::CommandSubscribe {
    pb::CommandSubscribe { consumer_name: Some("c".to_owned()), ..subscribe_command(7, consumer_id, sub_type) }
}

fn flow(blocks: &mut Blocks) {
    let mut exchange = Exchange::new(blocks);
    let conn = exchange.conn;
    exchange.harness.producer(conn, 1);
    exchange.harness.publish(conn, 1, PRODUCER, 0, b"hello");
    exchange.skip();
    exchange.client("subscribe", &frame(subscribe(1, SubType::Exclusive)));
    exchange.broker(["subscribe"]);
    exchange.client("flow", &frame(pb::CommandFlow { consumer_id: 1, message_permits: 1000 }));
    exchange.broker(["message"]);
}

/// A batch of three on a Shared subscription: a member is acknowledged, then the consumer comes again, then the rest is.
fn acknowledgement(blocks: &mut Blocks) {
    let mut exchange = Exchange::with(blocks, |config| config.acknowledgment_at_batch_index_level_enabled = true);
    let conn = exchange.conn;
    exchange.harness.producer(conn, 1);
    exchange.harness.publish(conn, 1, PRODUCER, 0, b"hello");
    exchange.harness.publish_batch(conn, 1, PRODUCER, 1, 3);
    exchange.skip();
    exchange.harness.send(conn, subscribe(1, SubType::Shared));
    exchange.skip();
    exchange.harness.flow(conn, 1, 1000);
    exchange.skip();
    let ack = |message_id: Vec<MessageIdData>, request_id| pb::CommandAck {
        consumer_id: 1,
        ack_type: AckType::Individual.into(),
        message_id,
        request_id,
        ..Default::default()
    };
    exchange.client("ack", &frame(ack(vec![id(1, 0)], Some(8))));
    exchange.broker(["ack"]);
    exchange.client("ack-member", &frame(ack(vec![id_with(1, 1, &[0b101])], None)));
    exchange.harness.redeliver(conn, 1, Vec::new());
    exchange.broker(["message-ack-set"]);
    exchange.client("ack-rest", &frame(ack(vec![id(1, 1)], None)));
    exchange.broker([]);
    exchange.blocks.vector("ack-cumulative", "client", "ack_cumulative");
    exchange.blocks.vector("ack-cumulative-in-batch", "client", "ack_cumulative_in_batch");
    exchange.harness.assert_clean();
}

fn redelivery(blocks: &mut Blocks) {
    let mut exchange = Exchange::new(blocks);
    let conn = exchange.conn;
    exchange.harness.producer(conn, 1);
    exchange.harness.publish(conn, 1, PRODUCER, 0, b"hello");
    exchange.skip();
    exchange.harness.send(conn, subscribe(1, SubType::Shared));
    exchange.skip();
    exchange.harness.flow(conn, 1, 1000);
    exchange.skip();
    let again = pb::CommandRedeliverUnacknowledgedMessages {
        consumer_id: 1,
        message_ids: vec![id(1, 0)],
        consumer_epoch: None,
    };
    exchange.client("redeliver", &frame(again));
    exchange.broker(["redeliver"]);
}

fn seek(blocks: &mut Blocks) {
    let mut exchange = Exchange::new(blocks);
    let conn = exchange.conn;
    exchange.harness.look_up(conn, TOPIC);
    exchange.harness.send(conn, subscribe(1, SubType::Exclusive));
    exchange.skip();
    let seek = pb::CommandSeek {
        consumer_id: 1,
        request_id: 9,
        message_id: Some(id(u64::MAX, u64::MAX)),
        message_publish_time: None,
    };
    exchange.client("seek", &frame(seek));
    exchange.broker(["seek", "seek"]);
}
