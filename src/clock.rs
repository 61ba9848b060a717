//! The wall clock of this process.

use jiff::Timestamp;

/// Now, in whole seconds of Unix time, as the ledgers keep it.
pub fn unix_now() -> u32 {
    u32::try_from(Timestamp::now().as_second()).unwrap_or(u32::MAX)
}
