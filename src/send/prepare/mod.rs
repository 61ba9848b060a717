//! TODO head

pub mod checks;
pub mod chunking;
pub mod exclusions;
pub mod fatigue;
pub mod pass;
pub mod preparations;

pub use pass::PreparationOutcome;
pub use preparations::settings;
