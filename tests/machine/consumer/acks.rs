//! Acknowledgements, one by one and cumulative, of entries and of members of a batch.

use super::*;

#[test]
fn acknowledgements_of_a_moment_share_a_frame() {
    let mut script = Script::attached(SHARED, |_| {});
    script.deliver((0..3).map(single));
    script.consume();
    script.consumer.take_dirty();
    script.ack(id(0));
    assert!(script.consumer.take_dirty(), "the owner has a new deadline");
    script.pass(MS(60));
    script.ack(id(1));
    assert!(!script.consumer.take_dirty());
    assert_eq!(script.sent(), NONE);
    script.pass(MS(40));
    assert_eq!(script.sent(), ["ACK 1:0 1:1"]);
    assert_eq!(script.consumer.poll_deadline(), None);
}

#[test]
fn a_full_group_leaves_at_once_and_so_does_every_one_without_grouping() {
    let mut script = Script::attached(SHARED, |config| config.max_acknowledgment_group_size = 3);
    script.ack(id(0));
    script.ack(id(1));
    assert_eq!(script.sent(), NONE);
    script.ack(id(2));
    assert_eq!(script.sent(), ["ACK 1:0 1:1 1:2"]);

    let mut script = Script::attached(SHARED, |config| config.acknowledgment_group_time = Duration::ZERO);
    script.ack(id(0));
    assert!(script.consumer.take_dirty());
    assert_eq!(script.sent(), ["ACK 1:0"]);
}

#[test]
fn acknowledgements_made_while_detached_go_out_after_the_next_attach() {
    let mut script = Script::attached(SHARED, |_| {});
    script.deliver((0..2).map(single));
    script.consume();
    script.ack(id(0));
    script.lose_connection();
    script.ack(id(1));
    script.pass(MS(5000));
    assert_eq!(script.sent(), NONE);
    script.attach();
    assert_eq!(script.sent(), ["ACK 1:0 1:1", "FLOW 10"]);
}

#[test]
fn a_delivery_of_what_is_about_to_be_acknowledged_is_dropped() {
    let mut script = Script::attached(SHARED, |_| {});
    script.deliver((0..2).map(single));
    script.consume();
    script.ack(id(1));
    script.deliver([single(1), single(0)]);
    assert_eq!(script.consume(), [(1, 0)]);
    script.pass(MS(100));
    assert_eq!(script.sent(), ["ACK 1:1"]);
    script.deliver([single(1)]);
    assert_eq!(script.consume(), [(1, 1)], "once it is written it is the broker's word that counts");
    assert_eq!(script.sent(), ["FLOW 5"]);
}

#[test]
fn without_index_acks_an_entry_goes_out_with_its_last_member() {
    let mut script = Script::attached(SHARED, |config| config.batch_index_acknowledgment = false);
    script.deliver([batch(0, 3), batch(1, 2)]);
    script.consume();
    for (entry, index, size) in [(0, 2, 3), (1, 0, 2), (0, 0, 3)] {
        script.ack(member(entry, index, size));
    }
    script.pass(MS(1000));
    assert_eq!(script.sent(), ["FLOW 5"]);
    script.ack(member(0, 1, 3));
    script.pass(MS(100));
    assert_eq!(script.sent(), ["ACK 1:0"]);
}

#[test]
fn with_index_acks_a_partial_batch_sends_its_set_and_a_whole_one_its_id() {
    let mut script = Script::attached(SHARED, |_| {});
    script.deliver([batch(0, 3)]);
    script.consume();
    script.ack(member(0, 1, 3));
    script.pass(MS(100));
    assert_eq!(script.sent(), ["ACK 1:0{5}"]);
    script.ack(member(0, 0, 3));
    script.ack(member(0, 2, 3));
    script.pass(MS(100));
    assert_eq!(script.sent(), ["ACK 1:0"]);
}

#[test]
fn acknowledged_members_are_not_handed_out_again() {
    for index_acks in [false, true] {
        let mut script = Script::attached(SHARED, |config| config.batch_index_acknowledgment = index_acks);
        script.deliver([batch(0, 4)]);
        script.consume();
        script.ack(member(0, 0, 4));
        script.ack(member(0, 3, 4));
        script.lose_connection();
        script.attach();
        let expected: &[&str] = if index_acks { &["ACK 1:0{6}", "FLOW 10"] } else { &["FLOW 10"] };
        assert_eq!(script.sent(), expected);
        script.deliver([batch(0, 4)]);
        let (entries, taken) = script.take();
        assert_eq!((entries[0].ack_set.as_slice(), entries[0].permits), (&[0b0110][..], 2));
        // Two of the four permits are home already.
        script.consumer.return_permits(ReturnedPermits { attach_number: taken.attach_number, count: 2 });
        script.deliver([single(1)]);
        script.consume();
        assert_eq!(script.sent(), ["FLOW 5"]);
    }
}

#[test]
fn partial_acks_are_sent_again_on_a_new_connection_while_they_are_of_use() {
    let mut script = Script::attached(EXCLUSIVE, |_| {});
    script.deliver([batch(0, 2), batch(1, 2), batch(2, 2)]);
    for entry in [0, 2] {
        script.ack(member(entry, 0, 2));
    }
    script.pass(MS(100));
    assert_eq!(script.sent(), ["ACK 1:0{2} 1:2{2}"]);
    script.lose_connection();
    script.attach();
    assert_eq!(script.sent(), ["ACK 1:0{2} 1:2{2}", "FLOW 10"], "the last connection may have lost it");
    script.ack_up_to(id(1));
    script.pass(MS(100));
    assert_eq!(script.sent(), ["ACK <=1:1"]);
    script.lose_connection();
    script.attach();
    assert_eq!(script.sent(), ["ACK 1:2{2}", "FLOW 10"]);
}

#[test]
fn members_that_the_broker_knows_as_acknowledged_need_no_second_one() {
    let mut script = Script::attached(SHARED, |config| config.batch_index_acknowledgment = false);
    script.deliver([ReceivedEntry::read(MessageHead { ack_set: vec![0b010], ..head(0) }, raw(Some(3)))]);
    script.consume();
    script.ack(member(0, 1, 3));
    script.pass(MS(100));
    assert_eq!(script.sent(), ["ACK 1:0"]);
}

#[test]
fn an_entry_with_nothing_left_is_finished_at_once() {
    let mut script = Script::attached(SHARED, |_| {});
    script.deliver([ReceivedEntry::read(MessageHead { ack_set: vec![0, 0], ..head(0) }, raw(Some(3)))]);
    assert_eq!(script.consumer.queued_messages(), 0);
    script.pass(MS(100));
    assert_eq!(script.sent(), ["ACK 1:0"]);
}

#[test]
fn cumulative_covers_what_lies_below() {
    let mut script = Script::attached(EXCLUSIVE, |_| {});
    script.deliver((0..5).map(single));
    script.consume();
    script.ack(id(1));
    script.ack(id(4));
    script.ack_up_to(id(3));
    script.ack_up_to(id(2));
    script.pass(MS(100));
    assert_eq!(script.sent(), ["ACK <=1:3", "ACK 1:4", "FLOW 5"]);
}

#[test]
fn cumulative_inside_a_batch() {
    let mut on = Script::attached(EXCLUSIVE, |_| {});
    on.deliver([batch(5, 3)]);
    on.ack_up_to(member(5, 1, 3));
    on.pass(MS(100));
    assert_eq!(on.sent(), ["ACK <=1:5{4}"]);
    on.ack_up_to(member(5, 2, 3));
    on.pass(MS(100));
    assert_eq!(on.sent(), ["ACK <=1:5"]);

    let mut off = Script::attached(EXCLUSIVE, |config| config.batch_index_acknowledgment = false);
    off.deliver([batch(0, 3)]);
    for index in [0, 1] {
        off.ack_up_to(member(0, index, 3));
        off.pass(MS(100));
        // Entry -1: nothing of this ledger. Said once.
        assert_eq!(off.sent(), if index == 0 { vec!["ACK <=1:-1"] } else { vec![] });
    }
    off.ack_up_to(member(0, 2, 3));
    off.pass(MS(100));
    assert_eq!(off.sent(), ["ACK <=1:0"]);
}

#[test]
fn cumulative_on_shared_is_refused_here() {
    for kind in [SHARED, SubscriptionType::KeyShared] {
        let mut script = Script::attached(kind, |_| {});
        let now = script.now;
        let error = script.consumer.ack_cumulative(&id(0), || now).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::NotAllowed);
        let mut reply = script.confirm(&[id(0)], true);
        assert_eq!(poll(&mut reply).expect("answered").expect_err("refused").kind(), ErrorKind::NotAllowed);
        script.pass(MS(1000));
        assert_eq!(script.sent(), NONE);
    }
}

#[test]
fn an_id_without_the_size_of_its_batch_needs_a_known_batch() {
    let mut script = Script::attached(SHARED, |_| {});
    let (bare, now) = (member(0, 1, 0), script.now);
    assert_eq!(script.consumer.ack(&bare, || now).expect_err("unknown").kind(), ErrorKind::InvalidArgument);
    assert!(script.consumer.ack(&member(0, 3, 3), || now).is_err());
    script.ack(member(0, 0, 2));
    script.ack(bare);
    script.pass(MS(100));
    assert_eq!(script.sent(), ["ACK 1:0"]);
}

#[test]
fn many_acknowledgements_take_several_frames_of_bounded_size() {
    let mut script = Script::attached(SHARED, |config| config.max_acknowledgment_group_size = 20_000);
    (0..20_000).for_each(|entry| script.ack(id(entry)));
    let sent = script.sent();
    assert!(sent.len() > 5, "{}", sent.len());
    let ids: usize = sent.iter().map(|frame| frame.split(' ').count() - 1).sum();
    assert_eq!(ids, 20_000);
}

#[test]
fn acknowledgements_without_a_connection_are_bounded() {
    let mut script = Script::new(SHARED, |_| {});
    let now = script.now;
    let refused = (0..1_000_000).find_map(|entry| script.consumer.ack(&id(entry), || now).err());
    assert_eq!(refused.expect("a bound").kind(), ErrorKind::QueueFull);
}

#[test]
fn acknowledgements_mean_nothing_on_a_non_persistent_topic() {
    let mut script = Script::on("non-persistent://public/default/t", SHARED, |_| {});
    script.attach();
    script.sent();
    script.ack(id(0));
    assert_eq!(poll(&mut script.confirm(&[id(1)], false)), Some(Ok(())));
    script.pass(MS(1000));
    assert_eq!(script.sent(), NONE);
}
