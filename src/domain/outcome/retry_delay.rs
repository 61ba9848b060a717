//! When a deferred recipient is tried again, and when retries end.

use std::time::Duration;

/// The wait after attempt number `attempts`. The last entry of the schedule repeats.
pub fn delay(schedule_minutes: &[f64], attempts: u8) -> Duration {
    let index = usize::from(attempts.max(1)) - 1;
    let minutes = schedule_minutes.get(index).or(schedule_minutes.last()).copied().unwrap_or(60.0);
    Duration::try_from_secs_f64(minutes * 60.0).unwrap_or(Duration::from_secs(3600))
}

/// When to try again, in Unix seconds; `None` if the validity period has ended by then.
pub fn due(now: u32, schedule_minutes: &[f64], attempts: u8, valid_until: u32) -> Option<u32> {
    let wait =
        delay(schedule_minutes, attempts).as_secs_f64().ceil().min(f64::from(u32::MAX)) as u32;
    let at = now.saturating_add(wait);
    (at < valid_until).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_is_followed_and_its_end_repeats() {
        let schedule = [5.0, 15.0, 60.0];
        let seconds: Vec<u64> = (0..6).map(|n| delay(&schedule, n).as_secs()).collect();
        assert_eq!(seconds, [300, 300, 900, 3600, 3600, 3600]);
    }

    #[test]
    fn nothing_is_tried_after_the_validity_period() {
        assert_eq!(due(1000, &[1.0], 1, 2000), Some(1060));
        assert_eq!(due(1000, &[1.0], 1, 1060), None);
        assert_eq!(due(u32::MAX - 5, &[1.0], 1, u32::MAX), None);
    }
}
