//! Seeks, and the attach that each of them ends with.

use super::*;

#[test]
fn a_seek_ends_with_the_attach_that_follows_it() {
    let mut script = Script::attached(EXCLUSIVE, |_| {});
    script.deliver((0..3).map(single));
    script.ack_up_to(id(0));
    let queue_epoch = script.queue_epoch();
    let mut done = script.seek(SeekTo::Earliest);
    assert!(script.queue_epoch() > queue_epoch && script.consumer.queued_messages() == 0);
    assert_eq!(script.sent(), ["ACK <=1:0", "request SEEK"]);
    assert_eq!(kind(&mut script.seek(SeekTo::Latest)), ErrorKind::Busy);
    script.deliver([single(3)]);
    script.ack_up_to(id(2));
    assert_eq!(script.consumer.queued_messages(), 0, "of before the seek");
    script.detach();
    script.answer(success());
    assert!(poll(&mut done).is_none());
    script.attach();
    assert_eq!(poll(&mut done), Some(Ok(())));
    assert_eq!(script.sent(), ["FLOW 10"]);
    script.deliver([single(0)]);
    assert_eq!(script.consume(), [(1, 0)]);
}

#[test]
fn after_a_seek_members_acknowledged_before_it_come_again() {
    let mut script = Script::attached(EXCLUSIVE, |config| config.batch_index_acknowledgment = false);
    script.deliver([batch(0, 3)]);
    script.consume();
    script.ack(member(0, 0, 3));
    let mut done = script.seek(SeekTo::Earliest);
    script.sent();
    script.detach();
    script.answer(success());
    script.attach();
    assert_eq!(poll(&mut done), Some(Ok(())));
    script.deliver([batch(0, 3)]);
    assert_eq!(script.take().0[0].permits, 3);
}

#[test]
fn a_seek_lost_with_its_connection_is_sent_again() {
    let mut script = Script::attached(EXCLUSIVE, |_| {});
    let mut done = script.seek(SeekTo::PublishTime(std::time::UNIX_EPOCH + Duration::from_millis(5)));
    assert_eq!(script.sent(), ["request SEEK"]);
    script.lose_connection();
    script.attach();
    assert_eq!(script.sent(), ["FLOW 10", "request SEEK"]);
    script.detach();
    script.answer(success());
    script.attach();
    assert_eq!(poll(&mut done), Some(Ok(())));
    assert_eq!(script.sent(), ["FLOW 10"]);
}

#[test]
fn a_refused_seek_brings_back_what_was_dropped_for_it() {
    let mut script = Script::attached(EXCLUSIVE, |_| {});
    script.deliver((0..6).map(single));
    let mut done = script.seek(SeekTo::Latest);
    assert_eq!(script.sent(), ["FLOW 6", "request SEEK"]);
    script.answer(refused());
    assert_eq!(kind(&mut done), ErrorKind::Server);
    assert_eq!(script.sent(), ["REDELIVER all epoch 1"]);
    script.deliver([single(0)]);
    assert_eq!(script.consume(), [(1, 0)]);
}

#[test]
fn a_seek_without_an_answer_ends_by_its_deadline() {
    let mut script = Script::attached(EXCLUSIVE, |_| {});
    let mut done = script.seek(SeekTo::Latest);
    script.sent();
    script.pass(Duration::from_secs(30));
    assert_eq!(kind(&mut done), ErrorKind::TimedOut);
    script.deliver([single(0)]);
    assert_eq!(script.consume(), [(1, 0)]);
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
        let mut script = Script::attached(EXCLUSIVE, |_| {});
        let mut done = script.seek(SeekTo::Message { id: to.into(), inclusive });
        script.sent();
        script.detach();
        script.answer(success());
        script.attach();
        assert_eq!(poll(&mut done), Some(Ok(())));
        script.sent();
        // A broker without batch index acknowledgement delivers the batch whole.
        script.deliver([batch(5, 4), single(6)]);
        let (entries, _) = script.take();
        let got = entries.iter().find(|entry| entry.entry_id == 5);
        assert_eq!(got.is_some(), first.is_some(), "{to} {inclusive}");
        if let (Some(got), Some(first)) = (got, first) {
            let all = got.ack_set.is_empty() || got.ack_set == [0b1111];
            assert!(got.ack_set == first || (first.is_empty() && all), "{to} {inclusive}: {:?}", got.ack_set);
        }
        assert_eq!(entries.last().map(|entry| entry.entry_id), Some(6));
    }
}

#[test]
fn on_a_non_persistent_topic_the_consumer_stays_through_a_seek() {
    let mut script = Script::on("non-persistent://public/default/t", EXCLUSIVE, |_| {});
    script.attach();
    let mut done = script.seek(SeekTo::Latest);
    assert_eq!(script.sent(), ["FLOW 10", "request SEEK"]);
    script.answer(success());
    assert_eq!(poll(&mut done), Some(Ok(())));
    script.deliver([single(0)]);
    assert_eq!(script.consume(), [(1, 0)]);
}
