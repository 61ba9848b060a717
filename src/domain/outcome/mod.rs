//! TODO head

pub mod failure;
pub mod phrases;
pub mod reply;
pub mod retry_delay;

pub use failure::{FailureReason, FailureType, classify};
pub use reply::{Reply, ReplyError};
