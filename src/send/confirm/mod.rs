//! The confirmation: the only way from "prepared" to "sent".
//!
//! - [`Confirmations`] confirms a digest for HTTP, the queue and tests.
//! - [`Approvals`] notes the first of two sign-offs, where two are needed.
//! - [`QueueConfirmations`] confirms for an upstream system that put a `ConfirmSend` job with a
//!   JWT on the queue.
//! - [`confirm_action`] decides whether a plan is due, scheduled or too late. The preparation
//!   uses it for deliveries that need no request for confirmation.
//!
//! The compare-and-set on the revision lets one confirmation through, however many arrive.
//!
//! Not in here: the digest itself ([`crate::domain::delivery`]); the check of tokens
//! ([`crate::identity`]); the start of a confirmed delivery and the release of its waves
//! ([`crate::send::release`]), which also withdraws a confirmation.

mod approvals;
mod confirmations;
mod from_queue;

pub use approvals::Approvals;
pub use confirmations::{Confirmations, confirm_action};
pub use from_queue::QueueConfirmations;
