//! Every report, for HTTP.

use super::{
    archive::Archives, exclusion_log::ExclusionLog, history::History, preview::Previews,
    sending_log::SendingLog, tracking_log::TrackingLogs,
};

/// Cheap to clone, as everything in it.
#[derive(Clone)]
pub struct Reports {
    pub sending_log: SendingLog,
    pub exclusion_log: ExclusionLog,
    pub tracking_logs: TrackingLogs,
    pub history: History,
    pub previews: Previews,
    pub archives: Archives,
}
