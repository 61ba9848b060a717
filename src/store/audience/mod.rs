//! TODO head

pub mod slices;

pub use slices::{PreparationProgress, SliceKind, ndjson};
