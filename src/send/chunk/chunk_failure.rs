//! Why a leased chunk could not be sent: an alteration in Redis, or a failure of the job.

use crate::{domain::schedule::Wave, queue::JobError, store::StoreError};

/// How far the clocks of two daemons may differ. A wave that was released earlier than its due
/// time by more than this was not released by a daemon.
const CLOCK_TOLERANCE_S: u32 = 300;

/// Why a chunk was not sent.
#[derive(Debug)]
pub(super) enum ChunkFailure {
    /// A part that no daemon of this installation wrote.
    Altered(String),
    Job(JobError),
}

impl From<StoreError> for ChunkFailure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Altered(part) => Self::Altered(part),
            other => Self::Job(other.into()),
        }
    }
}

impl From<JobError> for ChunkFailure {
    fn from(error: JobError) -> Self {
        Self::Job(error)
    }
}

/// The part that is altered if a wave and its recipients do not agree about their due time.
pub(super) const TABLE_OF_WAVES: &str = "the table of waves";

/// Whether the table says that a wave was released before it was due. No daemon does that.
pub(super) fn is_early(wave: &Wave, now: u32) -> bool {
    [wave.released_at, now].iter().any(|at| at.saturating_add(CLOCK_TOLERANCE_S) < wave.due)
}

/// Checks the wave of a chunk against `due`, the sealed due time of its recipients.
///
/// # Errors
/// If the table of waves has another due time.
pub(super) fn check_due(wave: &Wave, due: u32) -> Result<(), ChunkFailure> {
    match wave.due == due {
        true => Ok(()),
        false => Err(ChunkFailure::Altered(TABLE_OF_WAVES.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::schedule::WaveState;

    #[test]
    fn an_early_wave_and_one_with_another_due_time_are_refused() {
        let wave =
            |due, released_at| Wave { due, released_at, recipients: 1, state: WaveState::Open };
        for (due, released_at) in [(0, 5), (9_000, 9_000), (9_000, 8_800), (9_000, 9_500)] {
            assert!(!is_early(&wave(due, released_at), 9_000));
            assert!(check_due(&wave(due, released_at), due).is_ok());
            assert!(check_due(&wave(due, released_at), due + 1).is_err());
        }
        assert!(is_early(&wave(9_000, 1_000), 9_000) && is_early(&wave(9_000, 9_000), 8_000));
    }
}
