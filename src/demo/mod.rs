//! TODO head

pub mod audience;
pub mod client;
pub mod run;

pub use run::{DemoOptions, run};
