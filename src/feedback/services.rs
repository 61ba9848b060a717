//! Everything that takes feedback, for HTTP and cron.

use super::{
    denylist::Denylist, hit_recorder::HitRecording, link_targets::LinkTargets,
    statistics::StatisticsUpdates,
};

/// Cheap to clone, as everything in it.
#[derive(Clone)]
pub struct Feedback {
    pub links: LinkTargets,
    pub hits: HitRecording,
    pub denylist: Denylist,
    pub statistics: StatisticsUpdates,
}
