//! Ranges of settings.

use super::config_error::{ConfigError, refuse};

/// Checks that each value lies in its range: setting, value, smallest, largest.
///
/// # Errors
/// The first setting whose value lies outside its range. `prefix` stands before its name.
pub(super) fn check_ranges(
    prefix: &str,
    ranges: &[(&str, u64, u64, u64)],
) -> Result<(), ConfigError> {
    match ranges.iter().find(|(_, value, least, most)| !(least..=most).contains(&value)) {
        Some((setting, value, least, most)) => Err(refuse(
            format!("{prefix}{setting}"),
            format!("must be {least}..{most}, is {value}"),
        )),
        None => Ok(()),
    }
}

/// Whether `rate` is a usable number of messages per second; 0 means no limit.
pub(super) fn is_rate(rate: f64) -> bool {
    rate == 0.0 || (0.001..=1e6).contains(&rate)
}
