//! TODO head

pub mod copies;
pub mod definitions;
pub mod recurrences;
pub mod uploads;
