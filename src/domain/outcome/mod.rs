//! The outcome of an attempt: the reply of the server, its meaning, and the next try.
//!
//! - [`Reply`]: an SMTP reply, parsed strictly (RFC 5321, 4.2).
//! - [`classify()`]: what a reply says about the recipient. It gives a [`FailureReason`] (why) and
//!   a [`FailureType`] (what it means for the address: hard, soft or ignored).
//! - [`retry_delay`]: when a deferred recipient is tried again, and when retries end.
//!
//! `phrases` holds the phrases that servers write in their refusals. A new phrase belongs there.
//!
//! The transaction that gets the reply is in [`crate::mail::smtp`]. The stored status of a
//! recipient is in [`super::ledger`].

mod classify;
mod failure;
mod phrases;
mod reply;
pub mod retry_delay;

pub use classify::classify;
pub use failure::{FailureReason, FailureType};
pub use reply::{Reply, ReplyError};
