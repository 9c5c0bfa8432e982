//! When a client with several clusters leaves one for another, as the Java client's `AutoClusterFailover` does.
//!
//! Clusters are numbered in the order of preference; 0 is the primary. A *round* of probes is made in each interval:
//!
//! | in a round | what follows |
//! | --- | --- |
//! | the cluster in use can be reached | nothing |
//! | it cannot, for less than the failover delay | nothing |
//! | it cannot, for that long | the others are probed in their order, and the first that can be reached is used from now on; else nothing |
//! | a secondary is in use, and the primary can be reached, for the switch-back delay | the primary is used from now on |
//!
//! The Java client leaves a secondary for the primary alone; here another secondary is taken too.

use std::time::{Duration, Instant};

use super::Now;

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Find out whether this cluster can be reached, and [tell](AutoFailover::on_probed).
    Probe(usize),
    /// Use this cluster; the round is over.
    Switch(usize),
    /// The round is over.
    Wait,
}

/// Which cluster is being probed, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The one in use.
    Current,
    /// One that may take over.
    Candidate(usize),
    /// The primary, which may take over again.
    Primary,
    /// None: the round is over.
    Over,
}

/// The decisions for one client.
#[derive(Debug)]
pub struct AutoFailover {
    /// How many clusters there are.
    clusters: usize,
    failover_delay: Duration,
    switch_back_delay: Duration,
    current: usize,
    phase: Phase,
    /// Since when the cluster in use cannot be reached.
    failed_since: Option<Instant>,
    /// Since when the primary can be reached again.
    recovered_since: Option<Instant>,
}

impl AutoFailover {
    /// Begins with the primary, one of `clusters`.
    pub fn new(clusters: usize, failover_delay: Duration, switch_back_delay: Duration) -> Self {
        Self {
            clusters,
            failover_delay,
            switch_back_delay,
            current: 0,
            phase: Phase::Over,
            failed_since: None,
            recovered_since: None,
        }
    }

    /// Begins a round.
    pub fn begin_round(&mut self) -> Step {
        self.phase = Phase::Current;
        Step::Probe(self.current)
    }

    /// Whether the cluster of the last [`Step::Probe`] can be reached.
    pub fn on_probed(&mut self, is_reached: bool, now: Now) -> Step {
        match (self.phase, is_reached) {
            (Phase::Current, true) => {
                self.failed_since = None;
                self.probe_primary()
            }
            (Phase::Current, false) if mutation!(NeverFailOver) => self.probe_primary(),
            (Phase::Current, false) => {
                let since = *self.failed_since.get_or_insert(now.at);
                if has_passed(self.failover_delay, since, now) {
                    return self.probe_candidate(0);
                }
                self.probe_primary()
            }
            (Phase::Candidate(cluster), true) => self.switch(cluster),
            (Phase::Candidate(cluster), false) => {
                if cluster == 0 {
                    self.recovered_since = None;
                }
                self.probe_candidate(cluster + 1)
            }
            (Phase::Primary, true) => {
                let since = *self.recovered_since.get_or_insert(now.at);
                let is_due = has_passed(self.switch_back_delay, since, now);
                if is_due { self.switch(0) } else { self.end_round() }
            }
            (Phase::Primary, false) => {
                self.recovered_since = None;
                self.end_round()
            }
            (Phase::Over, _) => Step::Wait,
        }
    }

    fn probe_candidate(&mut self, from: usize) -> Step {
        match (from..self.clusters).find(|cluster| *cluster != self.current) {
            Some(cluster) => {
                self.phase = Phase::Candidate(cluster);
                Step::Probe(cluster)
            }
            None => self.end_round(),
        }
    }

    fn probe_primary(&mut self) -> Step {
        if self.current == 0 || mutation!(NeverSwitchBack) {
            return self.end_round();
        }
        self.phase = Phase::Primary;
        Step::Probe(0)
    }

    fn switch(&mut self, to: usize) -> Step {
        self.phase = Phase::Over;
        self.current = to;
        (self.failed_since, self.recovered_since) = (None, None);
        Step::Switch(to)
    }

    fn end_round(&mut self) -> Step {
        self.phase = Phase::Over;
        Step::Wait
    }
}

fn has_passed(delay: Duration, since: Instant, now: Now) -> bool {
    now.at.saturating_duration_since(since) >= delay || mutation!(SwitchAtOnce)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    struct Rounds {
        machine: AutoFailover,
        now: Now,
    }

    impl Rounds {
        /// Three clusters, two seconds to fail over, three to switch back.
        fn new() -> Self {
            let now = Now { at: Instant::now(), wall_ms: 0 };
            Self { machine: AutoFailover::new(3, 2 * SECOND, 3 * SECOND), now }
        }

        /// A round a second later, where these clusters can be reached: which one is switched to.
        fn round(&mut self, reached: &[usize]) -> Option<usize> {
            self.now.at += SECOND;
            let mut step = self.machine.begin_round();
            loop {
                step = match step {
                    Step::Probe(cluster) => self.machine.on_probed(reached.contains(&cluster), self.now),
                    Step::Switch(to) => return Some(to),
                    Step::Wait => return None,
                }
            }
        }

        fn rounds<const N: usize>(&mut self, reached: [&[usize]; N]) -> [Option<usize>; N] {
            reached.map(|reached| self.round(reached))
        }
    }

    #[test]
    fn the_first_that_is_reached_takes_over_after_the_delay() {
        let mut it = Rounds::new();
        assert_eq!(it.rounds([&[0, 1, 2], &[1, 2], &[1, 2], &[2]]), [None, None, None, Some(2)]);
        let mut it = Rounds::new();
        assert_eq!(it.rounds([&[1, 2], &[0], &[1, 2], &[1, 2], &[1, 2]]), [None, None, None, None, Some(1)]);
    }

    #[test]
    fn where_none_is_reached_nothing_changes_until_one_is() {
        let mut it = Rounds::new();
        assert_eq!(it.rounds([&[], &[], &[], &[], &[0], &[]]), [None; 6]);
        assert_eq!(it.rounds([&[], &[1]]), [None, Some(1)], "since the last time that it was reached");
    }

    #[test]
    fn the_primary_takes_over_again_once_it_has_lasted() {
        let mut it = Rounds::new();
        assert_eq!(it.rounds([&[1], &[1], &[1]])[2], Some(1));
        assert_eq!(it.rounds([&[0, 1], &[0, 1], &[1], &[0, 1], &[0, 1], &[0, 1]]), [None; 6]);
        assert_eq!(it.round(&[0, 1]), Some(0));
    }

    #[test]
    fn a_primary_that_fails_as_a_candidate_begins_anew() {
        let mut it = Rounds::new();
        assert_eq!(it.rounds([&[1], &[1], &[1]])[2], Some(1));
        assert_eq!(it.rounds([&[0, 1], &[0], &[0], &[], &[0, 1], &[0, 1], &[0, 1]]), [None; 7]);
        assert_eq!(it.round(&[0, 1]), Some(0), "three seconds after it was reached again");
    }

    #[test]
    fn a_secondary_that_fails_is_left_too() {
        let mut it = Rounds::new();
        assert_eq!(it.rounds([&[1], &[1], &[1]])[2], Some(1));
        assert_eq!(it.rounds([&[2], &[2], &[2]]), [None, None, Some(2)]);
        assert_eq!(it.rounds([&[0], &[0], &[0]]), [None, None, Some(0)]);
    }
}
