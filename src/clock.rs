//! The wall clock of this process, for rooms that do I/O.

use jiff::Timestamp;

use crate::domain::unix_seconds;

/// Now, in whole Unix seconds. The domain never calls it: there `now` is an argument.
pub fn unix_now() -> u32 {
    unix_seconds(Timestamp::now())
}
