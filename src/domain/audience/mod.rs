//! The audience: readers of an upload, causes of exclusion, and the fatigue rule.
//!
//! - [`AudienceReader`] turns the bytes of an upload, NDJSON or CSV, into [`Recipient`]s, in
//!   constant memory. [`LineError`] names the line that cannot be read.
//! - [`ExclusionCause`] and [`Exclusion`]: why a targeted recipient is left out.
//! - [`FatigueRule`], [`weight`] and [`message_counts`]: which earlier messages count against a new
//!   one. [`AddressKey`] is how the index of messages knows an address.
//! - [`matches()`]: masks of addresses, such as `*@example.com`.
//!
//! The check whether an address can be mailed is in [`crate::mail`]. The stored slices are in
//! [`crate::store::audience`], and the index of messages is in [`crate::store::addresses`].

pub mod address_mask;
mod csv_reader;
mod exclusion;
pub mod fatigue;
mod line_error;
mod ndjson_reader;
mod reader;
mod recipient;
mod unique_json;

pub use address_mask::matches;
pub use exclusion::{Exclusion, ExclusionCause};
pub use fatigue::{
    AddressKey, FatigueMoment, FatigueRule, FatigueWeight, digest_of, message_counts, weight,
};
pub use line_error::LineError;
pub use reader::{AudienceFormat, AudienceReader};
pub use recipient::Recipient;
