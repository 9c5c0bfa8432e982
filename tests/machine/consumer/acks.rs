//! Acknowledgements, one by one and cumulative, of entries and of members of a batch.

use super::*;

#[test]
fn acknowledgements_of_a_moment_share_a_frame() {
    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    harness.deliver((0..3).map(single));
    harness.consume();
    harness.consumer.take_dirty();
    harness.ack(id(0));
    assert_eq!(harness.consumer.take_dirty(), Dirty::AtDeadline, "the owner has a new deadline");
    harness.pass(MS(60));
    harness.ack(id(1));
    assert_eq!(harness.consumer.take_dirty(), Dirty::Clean);
    assert_eq!(harness.sent(), NONE);
    harness.pass(MS(40));
    assert_eq!(harness.sent(), ["ACK 1:0 1:1"]);
    assert_eq!(harness.consumer.poll_deadline(), None);
}

#[test]
fn a_full_group_leaves_at_once_and_so_does_every_one_without_grouping() {
    let mut harness = ConsumerHarness::attached(SHARED, |config| config.max_acknowledgment_group_size = 3);
    harness.ack(id(0));
    harness.ack(id(1));
    assert_eq!(harness.sent(), NONE);
    harness.ack(id(2));
    assert_eq!(harness.sent(), ["ACK 1:0 1:1 1:2"]);

    let mut harness = ConsumerHarness::attached(SHARED, |config| config.acknowledgment_group_time = Duration::ZERO);
    harness.ack(id(0));
    assert_eq!(harness.consumer.take_dirty(), Dirty::Now);
    assert_eq!(harness.sent(), ["ACK 1:0"]);
}

#[test]
fn acknowledgements_made_while_detached_go_out_after_the_next_attach() {
    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    harness.deliver((0..2).map(single));
    harness.consume();
    harness.ack(id(0));
    harness.lose_connection();
    harness.ack(id(1));
    harness.pass(MS(5000));
    assert_eq!(harness.sent(), NONE);
    harness.attach();
    assert_eq!(harness.sent(), ["ACK 1:0 1:1", "FLOW 10"]);
}

#[test]
fn a_delivery_of_what_is_about_to_be_acknowledged_is_dropped() {
    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    harness.deliver((0..2).map(single));
    harness.consume();
    harness.ack(id(1));
    harness.deliver([single(1), single(0)]);
    assert_eq!(harness.consume(), [(1, 0)]);
    harness.pass(MS(100));
    assert_eq!(harness.sent(), ["ACK 1:1"]);
    harness.deliver([single(1)]);
    assert_eq!(harness.consume(), [(1, 1)], "once it is written it is the broker's word that counts");
    assert_eq!(harness.sent(), ["FLOW 5"]);
}

#[test]
fn without_index_acks_an_entry_goes_out_with_its_last_member() {
    let mut harness = ConsumerHarness::attached(SHARED, |config| config.batch_index_acknowledgment = false);
    harness.deliver([batch(0, 3), batch(1, 2)]);
    harness.consume();
    for (entry, index, size) in [(0, 2, 3), (1, 0, 2), (0, 0, 3)] {
        harness.ack(member(entry, index, size));
    }
    harness.pass(MS(1000));
    assert_eq!(harness.sent(), ["FLOW 5"]);
    harness.ack(member(0, 1, 3));
    harness.pass(MS(100));
    assert_eq!(harness.sent(), ["ACK 1:0"]);
}

#[test]
fn with_index_acks_a_partial_batch_sends_its_set_and_a_whole_one_its_id() {
    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    harness.deliver([batch(0, 3)]);
    harness.consume();
    harness.ack(member(0, 1, 3));
    harness.pass(MS(100));
    assert_eq!(harness.sent(), ["ACK 1:0{5}"]);
    harness.ack(member(0, 0, 3));
    harness.ack(member(0, 2, 3));
    harness.pass(MS(100));
    assert_eq!(harness.sent(), ["ACK 1:0"]);
}

#[test]
fn acknowledged_members_are_not_handed_out_again() {
    for index_acks in [false, true] {
        let mut harness = ConsumerHarness::attached(SHARED, |config| config.batch_index_acknowledgment = index_acks);
        harness.deliver([batch(0, 4)]);
        harness.consume();
        harness.ack(member(0, 0, 4));
        harness.ack(member(0, 3, 4));
        harness.lose_connection();
        harness.attach();
        let expected: &[&str] = if index_acks { &["ACK 1:0{6}", "FLOW 10"] } else { &["FLOW 10"] };
        assert_eq!(harness.sent(), expected);
        harness.deliver([batch(0, 4)]);
        let (entries, taken) = harness.take();
        assert_eq!((&entries[0].ack_set[..], entries[0].permits), (&[0b0110][..], 2));
        // Two of the four permits are home already.
        harness.consumer.return_permits(ReturnedPermits { attach_number: taken.attach_number, count: 2 });
        harness.deliver([single(1)]);
        harness.consume();
        assert_eq!(harness.sent(), ["FLOW 5"]);
    }
}

#[test]
fn partial_acks_are_sent_again_on_a_new_connection_while_they_are_of_use() {
    let mut harness = ConsumerHarness::attached(EXCLUSIVE, |_| {});
    harness.deliver([batch(0, 2), batch(1, 2), batch(2, 2)]);
    for entry in [0, 2] {
        harness.ack(member(entry, 0, 2));
    }
    harness.pass(MS(100));
    assert_eq!(harness.sent(), ["ACK 1:0{2} 1:2{2}"]);
    harness.lose_connection();
    harness.attach();
    assert_eq!(harness.sent(), ["ACK 1:0{2} 1:2{2}", "FLOW 10"], "the last connection may have lost it");
    harness.ack_up_to(id(1));
    harness.pass(MS(100));
    assert_eq!(harness.sent(), ["ACK <=1:1"]);
    harness.lose_connection();
    harness.attach();
    assert_eq!(harness.sent(), ["ACK 1:2{2}", "FLOW 10"]);
}

#[test]
fn members_that_the_broker_knows_as_acknowledged_need_no_second_one() {
    let mut harness = ConsumerHarness::attached(SHARED, |config| config.batch_index_acknowledgment = false);
    harness.deliver([ReceivedEntry::read(MessageHead { ack_set: vec![0b010].into(), ..head(0) }, raw(Some(3)))]);
    harness.consume();
    harness.ack(member(0, 1, 3));
    harness.pass(MS(100));
    assert_eq!(harness.sent(), ["ACK 1:0"]);
}

#[test]
fn an_entry_with_nothing_left_is_finished_at_once() {
    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    harness.deliver([ReceivedEntry::read(MessageHead { ack_set: vec![0, 0].into(), ..head(0) }, raw(Some(3)))]);
    assert_eq!(harness.consumer.queued_messages(), 0);
    harness.pass(MS(100));
    assert_eq!(harness.sent(), ["ACK 1:0"]);
}

#[test]
fn cumulative_covers_what_lies_below() {
    let mut harness = ConsumerHarness::attached(EXCLUSIVE, |_| {});
    harness.deliver((0..5).map(single));
    harness.consume();
    harness.ack(id(1));
    harness.ack(id(4));
    harness.ack_up_to(id(3));
    harness.ack_up_to(id(2));
    harness.pass(MS(100));
    assert_eq!(harness.sent(), ["ACK <=1:3", "ACK 1:4", "FLOW 5"]);
}

#[test]
fn cumulative_inside_a_batch() {
    let mut on = ConsumerHarness::attached(EXCLUSIVE, |_| {});
    on.deliver([batch(5, 3)]);
    on.ack_up_to(member(5, 1, 3));
    on.pass(MS(100));
    assert_eq!(on.sent(), ["ACK <=1:5{4}"]);
    on.ack_up_to(member(5, 2, 3));
    on.pass(MS(100));
    assert_eq!(on.sent(), ["ACK <=1:5"]);

    let mut off = ConsumerHarness::attached(EXCLUSIVE, |config| config.batch_index_acknowledgment = false);
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
        let mut harness = ConsumerHarness::attached(kind, |_| {});
        let now = harness.now;
        let error = harness.consumer.ack_cumulative(&id(0), || now).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::NotAllowed);
        let mut reply = harness.confirm(&[id(0)], true);
        assert_eq!(poll(&mut reply).expect("answered").expect_err("refused").kind(), ErrorKind::NotAllowed);
        harness.pass(MS(1000));
        assert_eq!(harness.sent(), NONE);
    }
}

#[test]
fn an_id_without_the_size_of_its_batch_needs_a_known_batch() {
    let mut harness = ConsumerHarness::attached(SHARED, |_| {});
    let (bare, now) = (member(0, 1, 0), harness.now);
    assert_eq!(harness.consumer.ack(&bare, || now).expect_err("unknown").kind(), ErrorKind::InvalidArgument);
    assert!(harness.consumer.ack(&member(0, 3, 3), || now).is_err());
    harness.ack(member(0, 0, 2));
    harness.ack(bare);
    harness.pass(MS(100));
    assert_eq!(harness.sent(), ["ACK 1:0"]);
}

#[test]
fn many_acknowledgements_take_several_frames_of_bounded_size() {
    let mut harness = ConsumerHarness::attached(SHARED, |config| config.max_acknowledgment_group_size = 20_000);
    (0..20_000).for_each(|entry| harness.ack(id(entry)));
    let sent = harness.sent();
    assert!(sent.len() > 5, "{}", sent.len());
    let ids: usize = sent.iter().map(|frame| frame.split(' ').count() - 1).sum();
    assert_eq!(ids, 20_000);
}

#[test]
fn acknowledgements_without_a_connection_are_bounded() {
    let mut harness = ConsumerHarness::new(SHARED, |_| {});
    let now = harness.now;
    let refused = (0..1_000_000).find_map(|entry| harness.consumer.ack(&id(entry), || now).err());
    assert_eq!(refused.expect("a bound").kind(), ErrorKind::QueueFull);
}

#[test]
fn acknowledgements_mean_nothing_on_a_non_persistent_topic() {
    let mut harness = ConsumerHarness::on("non-persistent://public/default/t", SHARED, |_| {});
    harness.attach();
    harness.sent();
    harness.ack(id(0));
    assert_eq!(poll(&mut harness.confirm(&[id(1)], false)), Some(Ok(())));
    harness.pass(MS(1000));
    assert_eq!(harness.sent(), NONE);
}
