//! Connections that are kept between requests.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::redirect::Origin;

/// At most so many connections, for at most so long: a peer, or something between, forgets those that are silent.
#[derive(Debug)]
pub(super) struct Kept<C> {
    connections_max: usize,
    age_max: Duration,
    /// By the time since which they are kept, the oldest first.
    connections: VecDeque<(Origin, Instant, C)>,
}

impl<C> Kept<C> {
    pub(super) fn new(connections_max: usize, age_max: Duration) -> Self {
        Self { connections_max, age_max, connections: VecDeque::new() }
    }

    /// Keeps a connection; without room for it the oldest is dropped.
    pub(super) fn put(&mut self, origin: Origin, connection: C, now: Instant) {
        self.drop_old(now);
        if self.connections.len() >= self.connections_max {
            self.connections.pop_front();
        }
        self.connections.push_back((origin, now, connection));
    }

    /// The newest to this origin.
    pub(super) fn take(&mut self, origin: &Origin, now: Instant) -> Option<C> {
        self.drop_old(now);
        let at = self.connections.iter().rposition(|(kept, ..)| kept == origin)?;
        self.connections.remove(at).map(|(_, _, connection)| connection)
    }

    fn drop_old(&mut self, now: Instant) {
        let is_old = |since: Instant| now.saturating_duration_since(since) >= self.age_max;
        while self.connections.front().is_some_and(|(_, since, _)| is_old(*since)) {
            self.connections.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE_MAX: Duration = Duration::from_secs(30);

    fn origin(host: &str) -> Origin {
        Origin::new(false, host, 8080)
    }

    #[test]
    fn the_newest_is_taken_first_and_only_for_its_origin() {
        let (mut kept, start) = (Kept::new(3, AGE_MAX), Instant::now());
        for (host, name) in [("a", 1), ("b", 2), ("a", 3)] {
            kept.put(origin(host), name, start);
        }
        let mut take = |host| kept.take(&origin(host), start);
        assert_eq!([take("a"), take("a"), take("a"), take("c"), take("b")], [Some(3), Some(1), None, None, Some(2)]);
    }

    #[test]
    fn the_oldest_makes_room() {
        let (mut kept, start) = (Kept::new(2, AGE_MAX), Instant::now());
        for name in 1..=3 {
            kept.put(origin("a"), name, start);
        }
        let mut take = || kept.take(&origin("a"), start);
        assert_eq!([take(), take(), take()], [Some(3), Some(2), None]);
    }

    #[test]
    fn what_was_kept_for_long_is_dropped() {
        let (mut kept, start) = (Kept::new(2, AGE_MAX), Instant::now());
        kept.put(origin("a"), 1, start);
        kept.put(origin("a"), 2, start + AGE_MAX / 2);
        assert_eq!(kept.take(&origin("a"), start + AGE_MAX), Some(2));
        assert_eq!(kept.take(&origin("a"), start + AGE_MAX), None);
        kept.put(origin("b"), 3, start);
        assert_eq!(kept.take(&origin("b"), start + AGE_MAX), None);
    }
}
