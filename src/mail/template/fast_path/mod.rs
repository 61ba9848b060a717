//! TODO head

pub mod literal_runs;
pub mod merge;
pub mod parser;
pub mod part;

pub use merge::{CompiledMerge, MergeLimits};
pub use part::FastPathPart;
