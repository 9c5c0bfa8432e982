//! Requests for information, and notifications.

use super::*;

#[test]
fn the_last_message_id_is_read_as_the_broker_writes_it() {
    let mut script = Script::attached(SHARED, |_| {});
    let (to, mut reply) = Reply::pair();
    script.consumer.last_message_id(to, script.now, &mut script.deferred);
    assert_eq!(script.sent(), ["request GET_LAST_MESSAGE_ID"]);
    let data = |entry_id, batch_index| pb::MessageIdData {
        ledger_id: 4,
        entry_id,
        partition: Some(-1),
        batch_index: Some(batch_index),
        ..Default::default()
    };
    script.answer(Ok(Box::new(Command::GetLastMessageIdResponse(pb::CommandGetLastMessageIdResponse {
        last_message_id: data(9, 2),
        request_id: 0,
        consumer_mark_delete_position: Some(data(u64::MAX, -1)),
    }))));
    let LastMessageId { id, mark_delete } = poll(&mut reply).expect("answered").expect("an id");
    assert_eq!((id.to_string(), mark_delete.map(|id| id.to_string())), ("4:9:-1:2".into(), Some("4:-1:-1".into())));
}

#[test]
fn statistics_come_as_the_broker_gives_them() {
    let mut script = Script::attached(SHARED, |_| {});
    let (to, mut reply) = Reply::pair();
    script.consumer.stats(to, script.now, &mut script.deferred);
    assert_eq!(script.sent(), ["request CONSUMER_STATS"]);
    let response = pb::CommandConsumerStatsResponse { msg_backlog: Some(3), ..Default::default() };
    script.answer(Ok(Box::new(Command::ConsumerStatsResponse(response.clone()))));
    assert_eq!(poll(&mut reply), Some(Ok(response)));
}

#[test]
fn notifications_are_kept_until_they_are_read() {
    let mut script = Script::attached(SubscriptionType::Failover, |_| {});
    assert_eq!(script.consumer.is_active(), None);
    script.consumer.on_active_change(true);
    script.consumer.on_end_of_topic();
    assert_eq!((script.consumer.is_active(), script.consumer.has_reached_end_of_topic()), (Some(true), true));
}
