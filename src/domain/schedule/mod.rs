//! Schedules: when each message is due, the waves that share a due time, and recurrence.
//!
//! - [`Schedule`]: the schedule in a definition. [`DueTimes`] gives each recipient its due time.
//! - [`clock_change_warning`]: what happens to a local time that a clock change skips or repeats.
//! - [`Wave`] and [`ChunkPlace`]: the packed tables that a preparation writes. [`is_overdue`]
//!   decides whether a wave is late by more than its grace window.
//! - [`RecurrenceRule`], [`Recurrence`] and [`Occurrence`]: a template and what it creates.
//!
//! The clock is not here: a function that needs the time gets it. The release of due waves is in
//! [`crate::send::release`], and the creation of occurrences is in [`crate::send::define`].

mod due_times;
mod local_time;
mod recurrence;
mod wave;

pub use due_times::{DueTimes, Schedule, Undated};
pub use local_time::clock_change_warning;
pub use recurrence::{AudienceSource, Occurrence, Recurrence, RecurrenceRule, occurrence_id};
pub use wave::{ChunkPlace, PLACE_BYTES, WAVE_BYTES, Wave, WaveState, is_overdue};
