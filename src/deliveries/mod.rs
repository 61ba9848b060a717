//! Reads and changes deliveries: the other modules change a delivery only through this one.
//!
//! The one exception is the release of waves: its script in [`crate::store`] changes the state.
//!
//! - [`Deliveries`] reads a delivery, and changes it by compare-and-set on its revision. The audit
//!   entry and the answer for repeated requests are written in the same script.
//! - [`Actor`] says who changes a delivery; its unit and its precondition hold in each change.
//! - [`Decision`] is the result of the caller's rule; [`Changed`] is the answer.
//! - [`IdempotencyKey`] and [`RepeatKey`] let a repeated request get its first answer.
//! - [`Deliveries::halt_altered`] brings a delivery to rest that was altered in Redis.
//! - [`Refusal`] says why a step was refused, named by what the caller can do about it.
//! - [`each_delivery()`] is the loop for tasks over many deliveries.
//!
//! Not in here: the rules themselves. The states and their transitions are in
//! [`crate::domain::delivery`], the steps in [`crate::send`], the scripts and keys of Redis in
//! [`crate::store`].

mod actor;
mod change;
mod each_delivery;
mod refusal;
mod repeat_key;
mod step_log;

pub use actor::Actor;
pub use change::{Changed, Decision, Deliveries, require};
pub use each_delivery::each_delivery;
pub use refusal::Refusal;
pub use repeat_key::{IdempotencyKey, RepeatKey};
