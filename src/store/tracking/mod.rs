//! TODO head

pub mod hits;
pub mod tracking_log;

pub use hits::{BLOCK, PreparationRef};
pub use tracking_log::{StatisticsBasis, TrackingLogExtent};
