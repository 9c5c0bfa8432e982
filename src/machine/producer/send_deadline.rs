//! With which deadline a message is accepted.

use std::time::{Duration, Instant};

/// How far apart the deadlines of messages that share one may be.
const SHARED_DEADLINE_SPREAD_MAX: Duration = Duration::from_millis(500);

/// The deadline of a message when it is accepted. The batch or group that it joins has one deadline for all its
/// messages, that of the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendDeadline {
    /// The message did not wait for capacity: the send timeout counts from when the clock is first read for its
    /// entry. That is when its batch is opened, and for a group of framed messages when the group is started,
    /// so that accepting a message reads no clock.
    FromStart,
    /// The message has waited for capacity: the send timeout counted from the call that queued it.
    At(Instant),
    /// The message has waited for capacity, in a producer without a send timeout.
    Never,
}

impl SendDeadline {
    /// The deadline of a message that has waited for capacity, with this deadline for that and all that follows.
    pub(super) fn of_waiter(deadline: Option<Instant>) -> Self {
        deadline.map_or(Self::Never, Self::At)
    }

    /// Whether it was fixed before the message was accepted.
    pub(super) fn is_own(self) -> bool {
        self != Self::FromStart
    }

    /// The deadline, if the clock is first read for the entry when it says `start`.
    pub(super) fn resolve(self, start: impl FnOnce() -> Option<Instant>) -> Option<Instant> {
        match self {
            Self::FromStart => start(),
            Self::At(deadline) => Some(deadline),
            Self::Never => None,
        }
    }

    /// Whether a message that has this deadline of its own may share `first`.
    pub(super) fn is_near(self, first: Option<Instant>) -> bool {
        match (self, first) {
            (Self::At(own), Some(first)) => own.max(first) - own.min(first) <= SHARED_DEADLINE_SPREAD_MAX,
            (Self::Never, first) => first.is_none(),
            (Self::At(_), None) | (Self::FromStart, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_deadlines_that_are_near_are_shared() {
        let first = Instant::now();
        let (near, far) = (first + SHARED_DEADLINE_SPREAD_MAX, first + SHARED_DEADLINE_SPREAD_MAX * 2);
        assert!(SendDeadline::At(near).is_near(Some(first)) && SendDeadline::At(first).is_near(Some(near)));
        assert!(!SendDeadline::At(far).is_near(Some(first)) && !SendDeadline::At(first).is_near(Some(far)));
        assert!(SendDeadline::Never.is_near(None) && !SendDeadline::Never.is_near(Some(first)));
        assert!(!SendDeadline::At(first).is_near(None));
    }

    #[test]
    fn a_message_that_has_waited_keeps_the_deadline_of_its_call() {
        let (call, later) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        assert_eq!(SendDeadline::of_waiter(Some(call)).resolve(|| Some(later)), Some(call));
        assert_eq!(SendDeadline::of_waiter(None).resolve(|| Some(later)), None);
        assert_eq!(SendDeadline::FromStart.resolve(|| Some(later)), Some(later));
    }
}
