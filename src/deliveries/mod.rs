//! TODO head

pub mod change;
pub mod refusal;

pub use change::{Changed, Decision, Deliveries, IdempotencyKey, RepeatKey, require};
pub use refusal::Refusal;
