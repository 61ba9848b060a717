//! The pure rules: what a delivery is, and what may happen to it.
//!
//! Nothing here reads a clock or the network: `now` is an argument. The only files that it reads
//! are the time zones of the system. A rule that several folders of `src` need stands here once.
//!
//! - [`delivery`]: the document of a delivery, its states, settings and audit log.
//! - [`audience`]: the readers of an upload, the causes of exclusion, the fatigue rule.
//! - [`schedule`]: due times, waves, recurrence.
//! - [`ledger`]: the packed state of a chunk's recipients.
//! - [`outcome`]: what an SMTP reply says about a recipient, and when to try again.
//! - [`seal`]: the proof that a daemon of this installation wrote what stands in Redis.
//! - [`tracking`]: hits, their labels, statistics and KPIs.
//! - [`Role`] and [`Principal`]: who may do what. [`Invalid`]: a field that cannot be used.
//! - [`one_line`], [`is_hidden_control`] and [`misleads`]: hidden controls in strangers' text.
//! - [`instant`] and [`unix_seconds()`]: the time format of ledgers, tables and scripts.
//!
//! Keys and commands of Redis are in [`crate::store`], SMTP and templates in [`crate::mail`].

pub mod audience;
pub mod delivery;
mod invalid;
pub mod ledger;
pub mod outcome;
mod principal;
mod role;
pub mod schedule;
pub mod seal;
mod shown_text;
pub mod tracking;
mod unit_name;
mod unix_seconds;

pub use invalid::Invalid;
pub use principal::Principal;
pub use role::Role;
pub use shown_text::{is_hidden_control, misleads, one_line};
pub use unit_name::is_unit_name;
pub use unix_seconds::{instant, unix_seconds};
