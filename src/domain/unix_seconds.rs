//! Unix seconds, as ledgers and tables keep time.

use jiff::Timestamp;

/// Unix seconds as an instant.
pub fn instant(seconds: u32) -> Timestamp {
    Timestamp::from_second(i64::from(seconds)).unwrap_or_default()
}
