//! Feedback from recipients: opens, clicks, mirror pages, opt-outs, and their statistics.
//!
//! - [`LinkTargets`] finds what the token of a link stands for.
//! - [`HitRecorder`] writes hits into the tracking log before they are answered.
//! - [`Denylist`] takes opt-outs, and lets persons read and change the denylist.
//! - [`StatisticsUpdates`] computes the statistics, each hour and on demand.
//!
//! Not in here: the public listener that calls these services ([`crate::http`]); the making of
//! links and tokens ([`crate::mail::links`]); the rules that tell humans from machines
//! ([`crate::domain::tracking`]); the pages of the tracking log ([`crate::report`]).

mod denylist;
mod followed_link;
mod hit_recorder;
mod known_deliveries;
mod link_targets;
mod statistics_updates;

pub use denylist::Denylist;
pub use followed_link::{FollowedLink, LinkError, OptOutLink, Visit};
pub use hit_recorder::{HitReceiver, HitRecorder, hit_channel};
pub use known_deliveries::KnownDeliveries;
pub use link_targets::LinkTargets;
pub use statistics_updates::StatisticsUpdates;

/// Every service that takes feedback, for HTTP and the scheduler. Cheap to clone, and so is
/// everything in it.
#[derive(Clone)]
pub struct Feedback {
    pub links: LinkTargets,
    pub hits: HitRecorder,
    pub denylist: Denylist,
    pub statistics: StatisticsUpdates,
}
