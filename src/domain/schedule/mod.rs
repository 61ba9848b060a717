//! TODO head

pub mod due_times;
pub mod recurrence;
pub mod wave;

pub use due_times::{DueTimes, Schedule, Undated, changed_clock};
pub use recurrence::{AudienceSource, Occurrence, Recurrence, RecurrenceRule, id_of};
pub use wave::{ChunkPlace, PLACE_BYTES, WAVE_BYTES, Wave, WaveState, is_overdue};
