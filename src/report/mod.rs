//! TODO head

pub mod archive;
pub mod history;
pub mod preview;
pub mod sending_log;
pub mod tracking_log;

pub use archive::write_durably;
pub use preview::{NOT_PREPARED, RecipientMessage};
pub use sending_log::Page;
pub use tracking_log::TrackingFilter;
