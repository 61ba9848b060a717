//! The definition of a delivery: create, change, copy, delete; its audience; its recurrence.
//!
//! - [`Definitions`] creates, changes and deletes deliveries.
//! - [`Uploads`] streams an audience in. A broken upload raises the revision and changes
//!   nothing else.
//! - [`Copies`] makes a new delivery with the definition of another one, without its schedule.
//! - [`Recurrences`] turns a delivery into a template and creates its occurrences.
//! - [`effective_settings()`] completes the settings of a definition with the configuration.
//!
//! A change of definition or audience puts a prepared delivery back to `editing`.
//!
//! Not in here: the checks of a definition against the recipients ([`crate::send::prepare`]); the
//! types of a definition and its own rules ([`crate::domain::delivery`]); the readers of CSV and
//! NDJSON ([`crate::domain::audience`]); the removal of stored parts ([`crate::send::operate`]).

mod copies;
mod definitions;
mod effective_settings;
mod recurrences;
mod uploads;

pub use copies::Copies;
pub use definitions::Definitions;
pub use effective_settings::{effective_settings, settings_floor};
pub use recurrences::Recurrences;
pub use uploads::Uploads;
