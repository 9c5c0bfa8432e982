//! The memory limit of a client, over several producers.

use std::num::NonZeroUsize;

use pulsar_native::machine::memory::MemoryBudget;
use pulsar_native::machine::producer::CapacityBound;

use super::*;
use crate::common::random::Random;

fn budget(limit: usize) -> Arc<MemoryBudget> {
    MemoryBudget::new(NonZeroUsize::new(limit).expect("a limit"))
}

fn sharing(budget: &Arc<MemoryBudget>, config: ProducerConfig) -> ProducerHarness {
    let mut harness = ProducerHarness::attached(config);
    harness.producer.set_memory_budget(Some(budget.clone()));
    harness
}

fn pair(limit: usize) -> (Arc<MemoryBudget>, ProducerHarness, ProducerHarness) {
    let budget = budget(limit);
    let (first, second) = (sharing(&budget, unbatched()), sharing(&budget, unbatched()));
    (budget, first, second)
}

fn bytes(count: usize) -> String {
    "x".repeat(count)
}

fn refusal(harness: &mut ProducerHarness, size: usize) -> Option<CapacityBound> {
    let now = harness.now;
    match harness.producer.push(bytes(size).into(), None, || now) {
        Ok(_) => None,
        Err(PushError::Full(bound, rejected)) => {
            assert_eq!(rejected.message.payload().len(), size, "the message comes back");
            Some(bound)
        }
        Err(error) => panic!("{error:?}"),
    }
}

/// Confirms all that is written, from the id that is next.
fn confirm_all(harness: &mut ProducerHarness) {
    for sent in harness.transmit() {
        harness.confirm(sent.head.sequence_id);
    }
}

#[test]
fn one_limit_holds_over_all_producers_and_says_so() {
    let (budget, mut first, mut second) = pair(1000);
    let _ = (first.push(bytes(600)), second.push(bytes(400)));
    for harness in [&mut first, &mut second] {
        let bound = refusal(harness, 1).expect("the limit is reached");
        let CapacityBound::Memory(usage) = bound else { panic!("{bound}") };
        assert_eq!((usage.used, usage.limit), (1000, 1000));
        assert_eq!(bound.to_string(), "the client's memory_limit is reached: 1000 of 1000 bytes are in use");
    }
    confirm_all(&mut first);
    assert_eq!(budget.usage().used, 400, "with nothing pending, nothing is reserved");
    let _ = second.push(bytes(600));
    confirm_all(&mut second);
    assert_eq!(budget.usage().used, 0);
}

#[test]
fn what_is_reserved_ahead_is_bounded() {
    let budget = budget(16_000_000);
    let mut harnesses: Vec<_> = (0..100).map(|_| sharing(&budget, unbatched())).collect();
    for harness in &mut harnesses {
        let _ = harness.push("x");
    }
    let used = budget.usage().used;
    assert!((100..=16_000_000 / 8).contains(&used), "{used}");
    for harness in &mut harnesses {
        confirm_all(harness);
    }
    assert_eq!(budget.usage().used, 0);
}

#[test]
fn memory_is_granted_to_the_producers_in_the_order_in_which_they_came() {
    let (budget, mut first, mut second) = pair(100);
    let mut third = sharing(&budget, unbatched());
    let _ = first.push(bytes(100));
    let (mut large, mut small) = (Waiter::new(&bytes(80)), Waiter::new(&bytes(10)));
    assert!(large.poll(&mut second).is_pending() && small.poll(&mut third).is_pending());
    assert!(refusal(&mut third, 1).is_some(), "behind a task of its own");
    confirm_all(&mut first);
    assert_eq!((large.woken(), small.woken()), (1, 1), "both fit");
    assert_eq!(budget.usage().used, 90, "granted, before either task was polled");
    assert!(refusal(&mut first, 20).is_some(), "what was granted is not free");
    assert!(small.poll(&mut third).is_ready() && large.poll(&mut second).is_ready());
    confirm_all(&mut second);
    confirm_all(&mut third);
    assert_eq!(budget.usage().used, 0);
}

#[test]
fn no_small_message_overtakes_a_large_one_that_waits() {
    let (_, mut first, mut second) = pair(100);
    let _ = first.push(bytes(60));
    let mut large = Waiter::new(&bytes(80));
    assert!(large.poll(&mut second).is_pending());
    assert!(refusal(&mut first, 20).is_some(), "20 would fit, and another producer waits");
    confirm_all(&mut first);
    assert!(large.woken() == 1 && large.poll(&mut second).is_ready());
}

#[test]
fn a_message_above_the_limit_passes_alone() {
    let (budget, mut first, mut second) = pair(100);
    let _ = first.push(bytes(5000));
    assert_eq!(budget.usage().used, 5000);
    let mut larger = Waiter::new(&bytes(7000));
    assert!(larger.poll(&mut second).is_pending());
    confirm_all(&mut first);
    assert!(larger.poll(&mut second).is_ready());
    assert!(refusal(&mut first, 1).is_some());
    confirm_all(&mut second);
    assert_eq!((refusal(&mut first, 1), budget.usage().used > 0), (None, true));
}

/// In whatever way the first one ends its wait, before it is granted memory or after.
#[test]
fn who_gives_up_leaves_the_memory_to_the_next() {
    type End = fn(&mut ProducerHarness, &mut Waiter);
    let ends: [(&str, End); 4] = [
        ("dropped", |harness, waiter| waiter.give_up(harness)),
        ("timed out", |harness, _| harness.pass(31 * SECOND)),
        ("closed", |harness, _| drop(harness.close())),
        ("failed", |harness, _| {
            let _ = harness.send_error(0, ServerCode::TOPIC_TERMINATED_ERROR);
        }),
    ];
    for (how, end) in ends {
        for is_granted in [false, true] {
            let forever = || config(|config| config.send_timeout = Duration::ZERO);
            let budget = budget(100);
            let (mut holder, mut first) = (sharing(&budget, forever()), sharing(&budget, unbatched()));
            let mut second = sharing(&budget, forever());
            let _ = holder.push(bytes(50));
            let (mut gone, mut next) = (Waiter::new(&bytes(100)), Waiter::new(&bytes(50)));
            assert!(gone.poll(&mut first).is_pending() && next.poll(&mut second).is_pending());
            if is_granted {
                confirm_all(&mut holder);
                assert_eq!((gone.woken(), next.woken()), (1, 0), "{how}");
            }
            end(&mut first, &mut gone);
            assert_eq!(next.woken(), 1, "{how}, granted: {is_granted}");
            assert!(next.poll(&mut second).is_ready(), "{how}, granted: {is_granted}");
            confirm_all(&mut holder);
            confirm_all(&mut second);
            assert_eq!(budget.usage().used, 0, "{how}, granted: {is_granted}");
        }
    }
}

#[test]
fn the_next_task_of_a_producer_takes_the_place_of_one_that_gives_up() {
    let (budget, mut first, mut second) = pair(100);
    let _ = first.push(bytes(50));
    let mut waiters = [Waiter::new(&bytes(100)), Waiter::new(&bytes(10)), Waiter::new(&bytes(20))];
    assert!(waiters.iter_mut().all(|waiter| waiter.poll(&mut second).is_pending()));
    waiters[0].give_up(&mut second);
    assert_eq!((waiters[1].woken(), waiters[2].woken()), (1, 0));
    assert!(waiters[1].poll(&mut second).is_ready());
    assert!(waiters[2].woken() == 1 && waiters[2].poll(&mut second).is_ready());
    drop((first, second));
    assert_eq!(budget.usage().used, 0, "a producer that is dropped gives back everything");
}

#[test]
fn a_producer_at_a_bound_of_its_own_is_not_in_the_way_of_others() {
    let budget = budget(100);
    let (mut first, mut second) = (sharing(&budget, room_for(1)), sharing(&budget, unbatched()));
    let _ = first.push(bytes(50));
    let (mut blocked, mut other) = (Waiter::new(&bytes(50)), Waiter::new(&bytes(50)));
    assert!(blocked.poll(&mut first).is_pending());
    assert!(other.poll(&mut second).is_ready());
    assert_eq!(refusal(&mut first, 1), Some(CapacityBound::PendingMessages(1)));
    confirm_all(&mut first);
    assert!(blocked.woken() == 1 && blocked.poll(&mut first).is_ready());
}

#[test]
fn a_send_that_gets_no_memory_in_time_says_so() {
    let (_, mut first, mut second) = pair(100);
    let _ = first.push(bytes(100));
    let mut waiter = Waiter::new("x");
    assert!(waiter.poll(&mut second).is_pending());
    second.pass(30 * SECOND);
    let Poll::Ready(Err(error)) = waiter.poll(&mut second) else { panic!("its time is over") };
    let text = error.to_string();
    assert!(text.contains("memory_limit is reached: 100 of 100 bytes are in use"), "{text}");
    assert_eq!((error.error().kind(), error.may_be_stored()), (ErrorKind::TimedOut, false));
}

#[test]
fn whatever_happens_the_limit_holds_and_everything_is_served() {
    (0..200).for_each(storm);
}

/// Producers with tasks that wait, give up and time out. Nothing is lost, and no task waits for ever.
fn storm(seed: u64) {
    let mut random = Random::new(seed);
    let (limit, largest) = (1 + random.below(2000) as usize, 1 + random.below(3000) as usize);
    let budget = budget(limit);
    let any = |random: &mut Random| {
        config(|config| {
            config.batching = random.below(2) == 0;
            config.max_pending_messages = 1 + random.below(20) as usize;
            config.max_pending_bytes = *[usize::MAX, 500].get(random.below(2) as usize).expect("two");
            config.send_timeout = Duration::from_secs(random.below(2) * 5);
        })
    };
    let mut all: Vec<(ProducerHarness, VecDeque<Waiter>)> =
        (0..4).map(|_| (sharing(&budget, any(&mut random)), VecDeque::new())).collect();
    let pending = |all: &[(ProducerHarness, VecDeque<Waiter>)]| -> usize {
        all.iter().map(|(harness, _)| harness.producer.stats().pending_bytes).sum()
    };
    for _ in 0..400 {
        let (harness, waiters) = &mut all[random.below(4) as usize];
        match random.below(8) {
            0..3 => {
                let mut waiter = Waiter::new(&bytes(random.below(largest as u64 + 1) as usize));
                if waiter.poll(harness).is_pending() {
                    waiters.push_back(waiter);
                }
            }
            3 => drop(refusal(harness, random.below(largest as u64 + 1) as usize)),
            4 => confirm_all(harness),
            5 if !waiters.is_empty() => {
                let at = random.below(waiters.len() as u64) as usize;
                waiters.remove(at).expect("it is there").give_up(harness);
            }
            6 => harness.pass(Duration::from_millis(random.below(2000))),
            _ => waiters.retain_mut(|waiter| waiter.poll(harness).is_pending()),
        }
        assert!(pending(&all) <= budget.usage().used, "seed {seed}");
        assert!(budget.usage().used <= limit.max(largest), "seed {seed}: {}", budget.usage());
    }
    // Now only those are polled that were woken.
    let mut seen: Vec<Vec<usize>> = all.iter().map(|(_, waiters)| vec![0; waiters.len()]).collect();
    for _ in 0..2000 {
        for ((harness, waiters), seen) in all.iter_mut().zip(&mut seen) {
            confirm_all(harness);
            for at in (0..waiters.len()).rev() {
                let woken = waiters[at].woken();
                if woken > std::mem::replace(&mut seen[at], woken) && waiters[at].poll(harness).is_ready() {
                    waiters.remove(at);
                    seen.remove(at);
                }
            }
        }
    }
    assert!(all.iter().all(|(_, waiters)| waiters.is_empty()), "seed {seed}: {}", budget.usage());
    assert_eq!((pending(&all), budget.usage().used), (0, 0), "seed {seed}");
}
