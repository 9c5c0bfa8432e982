//! Sending at a fixed rate, an open loop: when a message is due does not depend on how long earlier ones take.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Stands for times beyond the range of the clock: 136 years.
const NEVER: Duration = Duration::from_secs(1 << 32);

/// When each message of a run is due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    start: Instant,
    /// Messages per second, at least 1.
    rate: u32,
}

impl Schedule {
    pub(super) fn new(start: Instant, rate: u32) -> Self {
        Self { start, rate: rate.max(1) }
    }

    /// When message number `number` of the run, from 0, is due.
    fn due(&self, number: u64) -> Instant {
        let nanos = (u128::from(number) * 1_000_000_000).div_ceil(u128::from(self.rate));
        let secs = u64::try_from(nanos / 1_000_000_000).unwrap_or(u64::MAX);
        let due = self.start.checked_add(Duration::new(secs, (nanos % 1_000_000_000) as u32));
        due.unwrap_or_else(|| self.start + NEVER)
    }

    /// How many messages are due by `now`.
    fn due_by(&self, now: Instant) -> u64 {
        let nanos = now.saturating_duration_since(self.start).as_nanos();
        u64::try_from(nanos * u128::from(self.rate) / 1_000_000_000).unwrap_or(u64::MAX).saturating_add(1)
    }
}

/// The part of a schedule that one of several senders has: every `senders`-th message.
pub(super) struct Pace {
    schedule: Schedule,
    sender: u64,
    senders: u64,
    wakeup: Arc<Notify>,
}

impl Pace {
    /// When the sender's own message number `number`, from 0, is due.
    pub(super) fn due(&self, number: u64) -> Instant {
        self.schedule.due(number.saturating_mul(self.senders).saturating_add(self.sender))
    }

    /// How many of the sender's own messages are due by `now`.
    pub(super) fn due_by(&self, now: Instant) -> u64 {
        self.schedule.due_by(now).saturating_sub(self.sender).div_ceil(self.senders)
    }

    /// Waits until more of them are due, or have become so since the last call.
    ///
    /// # Cancel safety
    /// Cancel safe: a wakeup that nothing waits for is kept for the next call.
    pub(super) async fn wakeup(&self) {
        self.wakeup.notified().await;
    }
}

/// Splits `messages` at `rate` among `senders`, and starts the thread that wakes them when their messages are due. The
/// timers of the runtime have a resolution of a millisecond, which would be most of a latency; a thread sleeps more
/// exactly.
///
/// The thread ends with the last message of the schedule, or within a second of `stop`.
pub(super) fn start(rate: u32, messages: u64, senders: u32, stop: CancellationToken) -> io::Result<Vec<Pace>> {
    let schedule = Schedule::new(Instant::now(), rate);
    let pace = |sender| Pace { schedule, sender, senders: senders.into(), wakeup: Arc::new(Notify::new()) };
    let paces: Vec<_> = (0..u64::from(senders)).map(pace).collect();
    let wakeups = paces.iter().map(|pace| pace.wakeup.clone()).collect();
    std::thread::Builder::new()
        .name("pace".to_owned())
        .spawn(move || wake_senders(&schedule, messages, wakeups, &stop))?;
    Ok(paces)
}

fn wake_senders(schedule: &Schedule, messages: u64, wakeups: Vec<Arc<Notify>>, stop: &CancellationToken) {
    let senders = wakeups.len() as u64;
    let mut woken = 0;
    while woken < messages && !stop.is_cancelled() {
        std::thread::sleep(schedule.due(woken).saturating_duration_since(Instant::now()));
        let due = schedule.due_by(Instant::now()).min(messages);
        // One wakeup serves all messages that a sender has due.
        for number in woken..due.min(woken.saturating_add(senders)) {
            wakeups[(number % senders) as usize].notify_one();
        }
        woken = due;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_due_exactly_from_its_time_on() {
        let start = Instant::now();
        for rate in [1, 3, 7, 1000, 999_983, u32::MAX] {
            let schedule = Schedule::new(start, rate);
            assert_eq!(schedule.due(0), start);
            for number in [1, 2, 10, 12_345, 10_000_000_000] {
                let due = schedule.due(number);
                assert!(schedule.due_by(due) > number, "message {number} at {rate} msg/s");
                assert!(schedule.due_by(due - Duration::from_nanos(1)) <= number, "message {number} at {rate} msg/s");
            }
        }
    }

    #[test]
    fn senders_take_turns() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 10);
        let pace = |sender| Pace { schedule, sender, senders: 4, wakeup: Arc::default() };
        // Messages 0 to 4 are due after 400 ms: two of sender 0, one of each other.
        let now = start + Duration::from_millis(400);
        assert_eq!([0, 1, 2, 3].map(|sender| pace(sender).due_by(now)), [2, 1, 1, 1]);
        assert_eq!([0, 1, 2, 3].map(|sender| pace(sender).due_by(start)), [1, 0, 0, 0]);
        assert_eq!(pace(3).due(2), start + Duration::from_millis(1100));
    }

    #[test]
    fn numbers_at_the_end_of_their_range_do_not_overflow() {
        let schedule = Schedule::new(Instant::now(), 1);
        let pace = Pace { schedule, sender: 3, senders: 4, wakeup: Arc::default() };
        assert!(pace.due(u64::MAX) >= schedule.start + NEVER);
        assert_eq!(
            Schedule::new(schedule.start, u32::MAX).due_by(schedule.start + Duration::from_secs(1 << 62)),
            u64::MAX
        );
        assert_eq!(Schedule::new(schedule.start, 0).rate, 1);
    }

    #[tokio::test]
    async fn every_sender_is_woken_for_its_messages() {
        let paces = start(1000, 20, 4, CancellationToken::new()).expect("a thread");
        for pace in &paces {
            let mut sent = 0;
            while sent < 5 {
                match pace.due_by(Instant::now()).min(5) {
                    due if due > sent => sent = due,
                    _ => pace.wakeup().await,
                }
            }
        }
    }
}
