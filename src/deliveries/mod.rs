//! TODO head

pub mod change;
pub mod refusal;

pub use change::{Changed, Decision, IdempotencyKey, RepeatKey, require};
pub use refusal::{Context, Refusal, unix_now};
