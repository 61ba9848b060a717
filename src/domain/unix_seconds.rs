//! Unix seconds: the time format of ledgers, tables and scripts.

use jiff::Timestamp;

/// The instant of a number of Unix seconds.
pub fn instant(seconds: u32) -> Timestamp {
    Timestamp::from_second(i64::from(seconds)).unwrap_or_default()
}

/// Whole Unix seconds of an instant, rounded down. The result is 0 before 1970, and `u32::MAX`
/// after 2106.
pub fn unix_seconds(at: Timestamp) -> u32 {
    u32::try_from(at.as_second().max(0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_lead_back_to_their_instant() {
        for seconds in [0, 1, 1_796_000_000, u32::MAX] {
            assert_eq!(unix_seconds(instant(seconds)), seconds);
        }
        assert_eq!(unix_seconds(Timestamp::MIN), 0);
        assert_eq!(unix_seconds(Timestamp::MAX), u32::MAX);
    }
}
