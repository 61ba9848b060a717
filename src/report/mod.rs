//! Reports about deliveries: logs, history, previews, archives.
//!
//! - [`SendingLog`]: the state of every recipient.
//! - [`ExclusionLog`]: the recipients that were left out, and why.
//! - [`TrackingLogs`]: every open, click, mirror page and opt-out.
//! - [`History`]: every message to one address, over all deliveries.
//! - [`Previews`] and [`RecipientMessages`]: the message of one recipient.
//! - [`Archives`]: a delivery with all its logs in one file.
//!
//! Reports change nothing. Not in here: gauges and the check of the figures
//! ([`crate::observe`]); the statistics ([`crate::feedback`]); the removal of logs
//! ([`crate::send::operate`]); the format of answers over HTTP ([`crate::http`]).

use serde::{Deserialize, Serialize};

mod archive;
mod exclusion_log;
mod history;
mod preview;
mod recipient_message;
mod sending_log;
mod tracking_log;

pub use archive::{Archives, write_durably};
pub use exclusion_log::ExclusionLog;
pub use history::History;
pub use preview::Previews;
pub use recipient_message::{NOT_PREPARED, RecipientMessage, RecipientMessages};
pub use sending_log::SendingLog;
pub use tracking_log::{TrackingFilter, TrackingLogs};

/// Every report, for HTTP. Cheap to clone, and so is everything in it.
#[derive(Clone)]
pub struct Reports {
    pub sending_log: SendingLog,
    pub exclusion_log: ExclusionLog,
    pub tracking_logs: TrackingLogs,
    pub history: History,
    pub previews: Previews,
    pub archives: Archives,
}

/// A page of a log, and the `from` of the next page if there is one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub next: Option<u64>,
}
