//! TODO head

pub mod hit_recorder;
pub mod statistics;
pub mod tracked_links;

pub use hit_recorder::{HitArrivals, HitRecorder};
pub use statistics::DAMAGED;
pub use tracked_links::{FollowedLink, KnownDeliveries, LinkError, Visit};
