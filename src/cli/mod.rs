//! TODO head

pub mod archive;
pub mod arguments;
pub mod audit;
pub mod client;
pub mod jobs;
pub mod relabel;
pub mod token;

pub use arguments::{Arguments, run, start_logging};
