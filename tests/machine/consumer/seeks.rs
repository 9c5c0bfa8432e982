//! Seeks, and the attach that each of them ends with.

use super::*;

#[test]
fn a_seek_ends_with_the_attach_that_follows_it() {
    let mut harness = ConsumerHarness::attached(EXCLUSIVE, |_| {});
    harness.deliver((0..3).map(single));
    harness.ack_up_to(id(0));
    let queue_epoch = harness.queue_epoch();
    let mut done = harness.seek(SeekTo::Earliest);
    assert!(harness.queue_epoch() > queue_epoch && harness.consumer.queued_messages() == 0);
    assert_eq!(harness.sent(), ["ACK <=1:0", "request SEEK"]);
    assert_eq!(kind(&mut harness.seek(SeekTo::Latest)), ErrorKind::Busy);
    harness.deliver([single(3)]);
    harness.ack_up_to(id(2));
    assert_eq!(harness.consumer.queued_messages(), 0, "of before the seek");
    harness.detach();
    harness.answer(success());
    assert!(poll(&mut done).is_none());
    harness.attach();
    assert_eq!(poll(&mut done), Some(Ok(())));
    assert_eq!(harness.sent(), ["FLOW 10"]);
    harness.deliver([single(0)]);
    assert_eq!(harness.consume(), [(1, 0)]);
}

#[test]
fn after_a_seek_members_acknowledged_before_it_come_again() {
    let mut harness = ConsumerHarness::attached(EXCLUSIVE, |config| config.batch_index_acknowledgment = false);
    harness.deliver([batch(0, 3)]);
    harness.consume();
    harness.ack(member(0, 0, 3));
    let mut done = harness.seek(SeekTo::Earliest);
    harness.sent();
    harness.detach();
    harness.answer(success());
    harness.attach();
    assert_eq!(poll(&mut done), Some(Ok(())));
    harness.deliver([batch(0, 3)]);
    assert_eq!(harness.take().0[0].permits, 3);
}

#[test]
fn a_seek_lost_with_its_connection_is_sent_again() {
    let mut harness = ConsumerHarness::attached(EXCLUSIVE, |_| {});
    let mut done = harness.seek(SeekTo::PublishTime(std::time::UNIX_EPOCH + Duration::from_millis(5)));
    assert_eq!(harness.sent(), ["request SEEK"]);
    harness.lose_connection();
    harness.attach();
    assert_eq!(harness.sent(), ["FLOW 10", "request SEEK"]);
    harness.detach();
    harness.answer(success());
    harness.attach();
    assert_eq!(poll(&mut done), Some(Ok(())));
    assert_eq!(harness.sent(), ["FLOW 10"]);
}

#[test]
fn a_refused_seek_brings_back_what_was_dropped_for_it() {
    let mut harness = ConsumerHarness::attached(EXCLUSIVE, |_| {});
    harness.deliver((0..6).map(single));
    let mut done = harness.seek(SeekTo::Latest);
    assert_eq!(harness.sent(), ["FLOW 6", "request SEEK"]);
    harness.answer(refused());
    assert_eq!(kind(&mut done), ErrorKind::Server);
    assert_eq!(harness.sent(), ["REDELIVER all epoch 1"]);
    harness.deliver([single(0)]);
    assert_eq!(harness.consume(), [(1, 0)]);
}

#[test]
fn a_seek_without_an_answer_ends_by_its_deadline() {
    let mut harness = ConsumerHarness::attached(EXCLUSIVE, |_| {});
    let mut done = harness.seek(SeekTo::Latest);
    harness.sent();
    harness.pass(Duration::from_secs(30));
    assert_eq!(kind(&mut done), ErrorKind::TimedOut);
    harness.deliver([single(0)]);
    assert_eq!(harness.consume(), [(1, 0)]);
}

#[test]
fn a_seek_to_a_message_leaves_out_what_lies_before_it() {
    for (to, inclusive, first) in [
        (id(5), true, Some(vec![])),
        (id(5), false, None),
        (member(5, 1, 4), true, Some(vec![0b1110])),
        (member(5, 1, 4), false, Some(vec![0b1100])),
        (member(5, 3, 4), false, None),
        (member(5, 0, 4), true, Some(vec![])),
    ] {
        let mut harness = ConsumerHarness::attached(EXCLUSIVE, |_| {});
        let mut done = harness.seek(SeekTo::Message { id: to.into(), inclusive });
        harness.sent();
        harness.detach();
        harness.answer(success());
        harness.attach();
        assert_eq!(poll(&mut done), Some(Ok(())));
        harness.sent();
        // A broker without batch index acknowledgement delivers the batch whole.
        harness.deliver([batch(5, 4), single(6)]);
        let (entries, _) = harness.take();
        let got = entries.iter().find(|entry| entry.entry_id == 5);
        assert_eq!(got.is_some(), first.is_some(), "{to} {inclusive}");
        if let (Some(got), Some(first)) = (got, first) {
            let all = got.ack_set.is_empty() || got.ack_set[..] == [0b1111];
            assert!(got.ack_set[..] == first || (first.is_empty() && all), "{to} {inclusive}: {:?}", got.ack_set);
        }
        assert_eq!(entries.last().map(|entry| entry.entry_id), Some(6));
    }
}

#[test]
fn on_a_non_persistent_topic_the_consumer_stays_through_a_seek() {
    let mut harness = ConsumerHarness::on("non-persistent://public/default/t", EXCLUSIVE, |_| {});
    harness.attach();
    let mut done = harness.seek(SeekTo::Latest);
    assert_eq!(harness.sent(), ["FLOW 10", "request SEEK"]);
    harness.answer(success());
    assert_eq!(poll(&mut done), Some(Ok(())));
    harness.deliver([single(0)]);
    assert_eq!(harness.consume(), [(1, 0)]);
}
