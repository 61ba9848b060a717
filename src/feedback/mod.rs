//! TODO head

pub mod denylist;
pub mod hit_recorder;
pub mod link_targets;
pub mod services;
pub mod statistics;
pub mod tracked_links;

pub use denylist::Denylist;
pub use hit_recorder::{HitArrivals, HitRecorder, HitRecording};
pub use link_targets::LinkTargets;
pub use services::Feedback;
pub use statistics::{DAMAGED, StatisticsUpdates};
pub use tracked_links::{FollowedLink, KnownDeliveries, LinkError, Visit};
