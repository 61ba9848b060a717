//! TODO head

pub mod conservation;
pub mod gauges;

pub use conservation::ConservationDifferences;
