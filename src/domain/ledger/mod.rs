//! The ledger of a chunk: the packed state of its recipients.
//!
//! A ledger is the only truth about who was sent to.
//!
//! - [`format`](mod@format): the layout of the bytes, which the Lua scripts of [`crate::store`]
//!   share.
//! - [`Ledger`], [`LedgerHeader`] and [`Record`] read them. [`Status`] is where a recipient stands.
//! - [`ClaimNumber`]: the name of a claim. A late report never overwrites a newer claim.
//! - [`Counts`]: how many recipients have each status.
//! - [`RecipientNumber`]: the number of a recipient in all logs, and its chunk and position.
//!
//! Nothing here changes a ledger: the scripts of [`crate::store`] do. Leases and reports are in
//! [`crate::store::chunks`]. Sending a chunk is in [`crate::send::chunk`].

mod counts;
pub mod format;
mod recipient_number;

pub use counts::Counts;
pub use format::{
    ClaimNumber, FATIGUE_CHECKED, HEADER_BYTES, Ledger, LedgerHeader, RECORD_BYTES, Record, Status,
    flags, header_of,
};
pub use recipient_number::{ChunkRef, RecipientNumber};
