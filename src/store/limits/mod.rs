//! TODO head

pub mod throttles;
pub use throttles::LimitStore;
