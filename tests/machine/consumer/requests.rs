//! Requests for information, and notifications.

use super::*;

#[test]
fn the_last_message_id_is_read_as_the_broker_writes_it() {
    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    let (to, mut reply) = Reply::pair();
    harness.consumer.last_message_id(to, harness.now, &mut harness.deferred);
    assert_eq!(harness.sent(), ["request GET_LAST_MESSAGE_ID"]);
    let data = |entry_id, batch_index| pb::MessageIdData {
        ledger_id: 4,
        entry_id,
        partition: Some(-1),
        batch_index: Some(batch_index),
        ..Default::default()
    };
    harness.answer(Ok(Box::new(Command::GetLastMessageIdResponse(pb::CommandGetLastMessageIdResponse {
        last_message_id: data(9, 2),
        request_id: 0,
        consumer_mark_delete_position: Some(data(u64::MAX, -1)),
    }))));
    let LastMessageId { id, mark_delete } = poll(&mut reply).expect("answered").expect("an id");
    assert_eq!((id.to_string(), mark_delete.map(|id| id.to_string())), ("4:9:-1:2".into(), Some("4:-1:-1".into())));
}

#[test]
fn statistics_come_as_the_broker_gives_them() {
    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    let (to, mut reply) = Reply::pair();
    harness.consumer.broker_stats(to, harness.now, &mut harness.deferred);
    assert_eq!(harness.sent(), ["request CONSUMER_STATS"]);
    let response = pb::CommandConsumerStatsResponse { msg_backlog: Some(3), ..Default::default() };
    harness.answer(Ok(Box::new(Command::ConsumerStatsResponse(response.clone()))));
    assert_eq!(poll(&mut reply), Some(Ok(response)));
}

#[test]
fn notifications_are_kept_until_they_are_read() {
    let mut harness = ConsumerHarness::attached(SubscriptionType::Failover, |_| {});
    assert_eq!(harness.consumer.is_active(), None);
    harness.consumer.on_active_change(true, &mut harness.deferred);
    harness.consumer.on_end_of_topic(&mut harness.deferred);
    assert_eq!((harness.consumer.is_active(), harness.consumer.has_reached_end_of_topic()), (Some(true), true));
}
