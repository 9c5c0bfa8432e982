//! Which refusals are told loudly: the first of a kind of each endpoint, and few of one kind in a row.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};

/// The most refusals of one kind that are told loudly within [`WINDOW`]: a broker that is starting refuses everything.
const SHOWN_MAX: u32 = 3;
const WINDOW: Duration = Duration::from_secs(60);

/// What tells refusals apart: the kind of the error, and the name of the broker's code. There are few of either.
pub(super) type Refusal = (ErrorKind, &'static str);

/// The refusal in an error: whatever kept a broker from taking an endpoint, but for a lost connection, which is told by
/// itself.
pub(super) fn refusal(error: &Error) -> Option<Refusal> {
    let code = error.server_error().map_or("", |refused| refused.code.name());
    (error.kind() != ErrorKind::Connection).then_some((error.kind(), code))
}

/// How many of each kind were shown, and since when.
#[derive(Debug, Default)]
pub(super) struct Shown {
    windows: HashMap<Refusal, (Instant, u32)>,
}

impl Shown {
    /// Whether one more of this kind is shown, which counts it.
    pub(super) fn admit(&mut self, refusal: Refusal, now: Instant) -> bool {
        let (since, shown) = self.windows.entry(refusal).or_insert((now, 0));
        if now.saturating_duration_since(*since) >= WINDOW {
            (*since, *shown) = (now, 0);
        }
        *shown += 1;
        *shown <= SHOWN_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ServerCode, ServerError};

    #[test]
    fn few_of_one_kind_are_shown_in_a_minute() {
        let refused = |code: ServerCode| refusal(&Error::server(ServerError::new(code.0, "no"), "a producer"));
        let (busy, quota) = (refused(ServerCode::PRODUCER_BUSY), refused(ServerCode(4711)));
        assert_eq!(quota, Some((ErrorKind::Server, "unknown code")), "a code is not made up by a peer");
        assert_eq!(refusal(&Error::network("reset")), None);
        let (mut shown, now) = (Shown::default(), Instant::now());
        let mut count = |refusal: Option<Refusal>, after: u64| {
            let at = now + Duration::from_secs(after);
            (0..10).filter(|_| shown.admit(refusal.expect("a refusal"), at)).count()
        };
        assert_eq!((count(busy, 0), count(quota, 1), count(busy, 59), count(busy, 60)), (3, 3, 0, 3));
    }
}
