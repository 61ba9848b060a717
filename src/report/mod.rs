//! TODO head

pub mod archive;
pub mod exclusion_log;
pub mod history;
pub mod preview;
pub mod recipient_message;
pub mod reports;
pub mod sending_log;
pub mod tracking_log;

pub use archive::{Archives, write_durably};
pub use exclusion_log::ExclusionLog;
pub use history::History;
pub use preview::{NOT_PREPARED, Previews, RecipientMessage};
pub use recipient_message::RecipientMessages;
pub use reports::Reports;
pub use sending_log::{Page, SendingLog};
pub use tracking_log::{TrackingFilter, TrackingLogs};
