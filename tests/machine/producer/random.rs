//! Anything, in any order.

use pulsar_native::machine::producer::BatchingType;
use pulsar_native::machine::{Dirty, EndpointMachine as _};

use super::*;
use crate::common::random::Random;

#[test]
fn whatever_happens_every_send_ends_once_and_order_is_kept() {
    for seed in 0..300 {
        storm(seed);
    }
}

fn storm(seed: u64) {
    let mut random = Random::new(seed);
    let keys = 1 + random.below(2) * 4;
    let mut harness = ProducerHarness::new(config(|config| {
        config.batching = keys > 1 || random.below(4) > 0;
        config.batching_type = if keys > 1 { BatchingType::KeyBased } else { BatchingType::Default };
        config.batching_max_messages = 1 + random.below(6) as u32;
        config.batching_max_publish_delay = Duration::from_millis(random.below(3) * 20);
        config.max_pending_messages = 1 + random.below(40) as usize;
        config.send_timeout = Duration::from_secs(random.below(2) * 20);
    }));
    let mut sends: Vec<PendingSend> = Vec::new();
    // What the broker has and has not answered, on this connection.
    let mut unanswered: VecDeque<Sent> = VecDeque::new();
    let mut jobs: Vec<SealJob> = Vec::new();
    let mut attached = false;
    // The owner has done something itself since it last looked, and looks again without being told.
    let mut looks = true;
    for _ in 0..300 {
        match random.below(10) {
            0..4 => {
                let key = random.below(keys);
                // Small batches are sealed at once, others by jobs.
                let padding = " ".repeat(random.below(2) as usize * 3000);
                let mut message = Message::new(format!("{key} {} {padding}", sends.len())).with_key(key.to_string());
                match random.below(10) {
                    0 => message = message.with_deliver_at(std::time::UNIX_EPOCH),
                    1 => message = message.with_batching(false),
                    _ => {}
                }
                let now = harness.now;
                if let Ok(send) = harness.producer.push(message, None, || now) {
                    sends.push(send);
                }
            }
            4 => jobs.extend(harness.producer.take_closed_job(|| harness.now)),
            5 if !jobs.is_empty() => {
                let job = jobs.remove(random.below(jobs.len() as u64) as usize);
                harness.put(job);
            }
            6 => {
                let dirty = harness.producer.take_dirty();
                let sent = harness.transmit();
                assert!(looks || dirty == Dirty::Now || sent.is_empty(), "seed {seed}: written without a notification");
                looks = false;
                unanswered.extend(sent);
            }
            7 => {
                looks = true;
                for _ in 0..random.below(4) {
                    if let Some(sent) = unanswered.pop_front() {
                        harness.confirm(sent.head.sequence_id);
                    }
                }
            }
            8 => {
                looks = true;
                harness.pass(Duration::from_millis(random.below(3000)));
            }
            _ if random.below(4) == 0 => {
                looks = true;
                if attached {
                    harness.detach();
                    unanswered.clear();
                } else {
                    harness.attach(-1);
                }
                attached = !attached;
            }
            _ => drop(harness.flush()),
        }
        check_order(unanswered.make_contiguous());
    }
    if !attached {
        harness.attach(-1);
    }
    for job in jobs {
        harness.put(job);
    }
    let mut reply = harness.close();
    for _ in 0..400 {
        unanswered.extend(harness.transmit());
        check_order(unanswered.make_contiguous());
        for sent in std::mem::take(&mut unanswered) {
            harness.confirm(sent.head.sequence_id);
        }
        if !harness.asked.is_empty() {
            harness.answer_close(success());
        }
        harness.pass(Duration::from_millis(100));
    }
    assert!(matches!(poll_reply(&mut reply), Some(Ok(()))), "seed {seed}");
    assert!(!sends.iter().any(is_pending), "seed {seed}");
    harness.assert_empty();
}

fn check_order(sent: &[Sent]) {
    let mut last = [None; 5];
    for payload in sent.iter().flat_map(|sent| &sent.payloads) {
        let mut words = std::str::from_utf8(payload).expect("text").split(' ');
        let (key, number) = (words.next().expect("a key"), words.next().expect("a number").parse::<u64>().ok());
        let before = last[key.parse::<usize>().expect("a digit")].replace(number);
        assert!(before < Some(number), "key {key}: {number:?} behind {before:?}");
    }
    // Those of the messages of several keys overlap.
    assert!(sent.iter().map(|sent| sent.head.sequence_id).is_sorted_by(|a, b| a < b));
}
