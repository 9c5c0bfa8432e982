//! Anything, in any order.

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
    let mut rig = Rig::new(config(|config| {
        config.batching = random.below(4) > 0;
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
    for _ in 0..300 {
        match random.below(10) {
            0..4 => {
                let mut message = Message::new(sends.len().to_string());
                if random.below(10) == 0 {
                    message = message.with_deliver_at(std::time::UNIX_EPOCH);
                }
                let now = rig.now;
                if let Ok(send) = rig.producer.push(message, None, || now) {
                    sends.push(send);
                }
            }
            4 => jobs.extend(rig.producer.take_closed_job(|| rig.now)),
            5 if !jobs.is_empty() => {
                let job = jobs.remove(random.below(jobs.len() as u64) as usize);
                rig.put(job);
            }
            6 => unanswered.extend(rig.transmit()),
            7 => {
                for _ in 0..random.below(4) {
                    if let Some(sent) = unanswered.pop_front() {
                        rig.confirm(sent.head.sequence_id);
                    }
                }
            }
            8 => rig.pass(Duration::from_millis(random.below(3000))),
            _ if random.below(4) == 0 => {
                if attached {
                    rig.detach();
                    unanswered.clear();
                } else {
                    rig.attach(-1);
                }
                attached = !attached;
            }
            _ => drop(rig.flush()),
        }
        check_order(unanswered.make_contiguous());
    }
    if !attached {
        rig.attach(-1);
    }
    for job in jobs {
        rig.put(job);
    }
    let mut reply = rig.close();
    for _ in 0..400 {
        unanswered.extend(rig.transmit());
        check_order(unanswered.make_contiguous());
        for sent in std::mem::take(&mut unanswered) {
            rig.confirm(sent.head.sequence_id);
        }
        if !rig.asked.is_empty() {
            rig.answer_close(success());
        }
        rig.pass(Duration::from_millis(100));
    }
    assert!(matches!(poll_reply(&mut reply), Some(Ok(()))), "seed {seed}");
    assert!(!sends.iter().any(is_pending), "seed {seed}");
    rig.assert_empty();
}

fn check_order(sent: &[Sent]) {
    let payloads = sent.iter().flat_map(|sent| &sent.payloads);
    let numbers: Vec<u64> =
        payloads.map(|text| std::str::from_utf8(text).expect("text").parse().expect("a number")).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    assert!(ids(sent).is_sorted_by(|a, b| a < b));
}
