//! The wall clock of this process.

use jiff::Timestamp;

use crate::domain::unix_seconds::unix_seconds;

/// Now, in whole Unix seconds, as the ledgers keep it.
pub fn unix_now() -> u32 {
    unix_seconds(Timestamp::now())
}
