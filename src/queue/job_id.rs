//! The rules for job ids.

use std::str::FromStr;

use apalis_core::task::task_id::TaskId;

use super::queue_error::QueueError;

/// Checks that an id can be used.
pub(super) fn check_id(id: &str) -> Result<(), QueueError> {
    if plain_id(id) && round_trips(id) { Ok(()) } else { Err(QueueError::BadId) }
}

/// True if an id has only characters that are safe in a key, a URL path and a log line.
pub(super) fn plain_id(id: &str) -> bool {
    (1..=200).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'))
}

/// True if apalis gives an id back as it got it.
///
/// apalis reads an id as a ULID or a number where it can, and writes it in its own form: `007`
/// would come back as `7`.
pub(super) fn round_trips(id: &str) -> bool {
    TaskId::from_str(id).is_ok_and(|parsed| parsed.as_string() == Some(id))
}
