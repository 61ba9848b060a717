//! TODO head

pub mod throttles;
