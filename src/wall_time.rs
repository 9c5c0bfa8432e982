//! Wall-clock times in the protocol's form: milliseconds since 1970 UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time as a number of the protocol, negative before 1970. Times out of range, some 292 million years away, saturate.
pub(crate) fn to_ms(time: SystemTime) -> i64 {
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => ms(after),
        Err(before) => -ms(before.duration()),
    }
}

/// The time for a number of the protocol. One that the operating system cannot represent becomes 1970.
pub(crate) fn from_ms(ms: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(ms)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_and_after_1970_are_told_apart() {
        let second = Duration::from_secs(1);
        assert_eq!((to_ms(UNIX_EPOCH), to_ms(UNIX_EPOCH + second), to_ms(UNIX_EPOCH - second)), (0, 1000, -1000));
    }

    #[test]
    fn a_number_of_a_peer_is_a_time_and_never_a_panic() {
        for ms in [0, 1, 1_700_000_000_123, i64::MAX as u64] {
            assert!([ms as i64, 0].contains(&to_ms(from_ms(ms))), "{ms}");
        }
        let _ = from_ms(u64::MAX);
    }
}
