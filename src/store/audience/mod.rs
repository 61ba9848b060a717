//! TODO head

pub mod preparation_progress;
pub mod slices;

pub use preparation_progress::PreparationProgress;
pub use slices::AudienceStore;
pub use slices::{SliceKind, ndjson};
