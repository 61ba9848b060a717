//! TODO head

pub mod figures;
pub mod hits;
pub mod tracking_log;

pub use hits::TrackingStore;
pub use hits::{BLOCK, PreparationRef};
pub use tracking_log::{StatisticsBasis, TrackingLogExtent};
