//! TODO head

pub mod checks;
pub mod chunking;
pub mod exclusions;
pub mod fatigue;
pub mod pass;
pub mod preparations;

pub use exclusions::{address, key_of};
pub use pass::{PassTools, PreparationOutcome};
pub use preparations::Preparations;
