//! Small machines beside a model of each: sets of unacknowledged messages, and the choice of a cluster.

use std::time::{Duration, Instant};

use crate::machine::Now;
use crate::machine::failover::{AutoFailover, Step};
use crate::wire::ack_set::AckSet;
use crate::wire::explain::generate::Source;

/// Operations on the set of unacknowledged messages of a batch, beside a list of flags. The first byte is the size of the
/// batch, each further one an operation with its operand.
pub fn ack_set(data: &[u8]) {
    let mut source = Source::new(data);
    let mut set = AckSet::full(0);
    let mut model: Vec<bool> = Vec::new();
    restart(&mut set, &mut model, source.below(200));
    for _ in 0..200 {
        if source.is_over() {
            break;
        }
        let (operation, index) = (source.below(8), source.below(256) as u32);
        let at = index as usize;
        match operation {
            0 | 1 => {
                let was_set = model.get_mut(at).is_some_and(std::mem::take);
                assert_eq!(set.clear(index), was_set);
            }
            2 => {
                let in_word = |other: usize| other != at && other / 64 == at / 64;
                let has_others = model.iter().enumerate().any(|(other, is_set)| *is_set && in_word(other));
                assert_eq!(set.clear_unless_last(index), has_others);
                if let Some(is_set) = model.get_mut(at).filter(|_| has_others) {
                    *is_set = false;
                }
            }
            3 => {
                let upto = model.len().min(at + 1);
                let was_set = model[..upto].iter().filter(|is_set| **is_set).count();
                assert_eq!(set.clear_up_to(index) as usize, was_set);
                model[..upto].fill(false);
            }
            4 | 5 => {
                let words: Vec<i64> = (0..index % 5).map(|_| source.number() as i64).collect();
                set.and_with(&words);
                let bit = |at: usize| words.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1);
                if !words.is_empty() {
                    model.iter_mut().enumerate().for_each(|(at, is_set)| *is_set &= bit(at));
                }
                let size = model.len() as u32;
                assert_eq!(AckSet::count_words(&words, size), AckSet::from_words(&words, size).count());
            }
            6 => restart(&mut set, &mut model, at),
            _ => assert_eq!(AckSet::from_words(&set.to_words(), model.len() as u32).count(), {
                // No words stand for all of them.
                if set.is_empty() { model.len() as u32 } else { set.count() }
            }),
        }
        let size = model.len() as u32;
        assert!((0..size).all(|index| set.is_set(index) == model[index as usize]) && !set.is_set(size));
        let count = model.iter().filter(|is_set| **is_set).count();
        assert_eq!((set.count() as usize, set.is_empty()), (count, count == 0));
        assert!(set.to_words().last().is_none_or(|word| *word != 0), "no zero words at the end");
    }
}

/// A new batch in the memory of the one before.
fn restart(set: &mut AckSet, model: &mut Vec<bool>, size: usize) {
    set.refill(size as u32);
    *model = vec![true; size];
    assert_eq!(*set, AckSet::full(size as u32));
}

/// Rounds of probes: each byte says for three clusters which of them can be reached, and how long the next round is in coming.
/// The cluster in use is left only after it was out of reach, or the primary in reach, for the whole delay.
pub fn auto_failover(data: &[u8]) {
    const CLUSTERS: usize = 3;
    const LEAVE: Duration = Duration::from_secs(3);
    const SWITCH_BACK: Duration = Duration::from_secs(5);
    let mut machine = AutoFailover::new(CLUSTERS, LEAVE, SWITCH_BACK);
    let mut now = Now { at: Instant::now(), wall_ms: 0 };
    let (mut current, mut failed_since, mut recovered_since) = (0, None, None);
    for byte in data.iter().take(1000) {
        now.at += Duration::from_millis(u64::from(byte >> 3) * 200);
        let is_reached = |cluster: usize| byte >> cluster & 1 == 1;
        let mut probed = Vec::new();
        let mut step = machine.begin_round();
        let to = loop {
            step = match step {
                Step::Probe(cluster) => {
                    assert!(cluster < CLUSTERS && !probed.contains(&cluster), "each at most once in a round");
                    probed.push(cluster);
                    machine.on_probed(is_reached(cluster), now)
                }
                Step::Switch(to) => break Some(to),
                Step::Wait => break None,
            }
        };
        assert_eq!(probed.first(), Some(&current));
        failed_since = (!is_reached(current)).then(|| *failed_since.get_or_insert(now.at));
        if probed.contains(&0) && current != 0 {
            recovered_since = is_reached(0).then(|| *recovered_since.get_or_insert(now.at));
        }
        let has_passed = |since: Option<Instant>, delay| since.is_some_and(|since| now.at - since >= delay);
        let must_leave = has_passed(failed_since, LEAVE);
        if let Some(to) = to {
            assert!(to != current && is_reached(to));
            let is_first = (0..to).all(|earlier| earlier == current || !is_reached(earlier));
            let is_due = must_leave && is_first || to == 0 && has_passed(recovered_since, SWITCH_BACK);
            assert!(is_due, "a cluster is not left at once");
            (current, failed_since, recovered_since) = (to, None, None);
        } else {
            assert!(!must_leave || (0..CLUSTERS).all(|other| !is_reached(other)), "one that is out of reach is left");
        }
        assert_eq!(machine.on_probed(true, now), Step::Wait, "the round is over");
    }
}
