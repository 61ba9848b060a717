//! TODO head

pub mod change;
mod each;
pub mod refusal;

pub use change::{Changed, Decision, Deliveries, IdempotencyKey, RepeatKey, require};
pub use each::each_delivery;
pub use refusal::Refusal;
