//! TODO head

pub mod due_waves;
pub mod start;

pub use due_waves::instant;
