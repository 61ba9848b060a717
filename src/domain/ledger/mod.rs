//! TODO head

pub mod counts;
pub mod format;
pub mod recipient_number;

pub use counts::Counts;
pub use format::{
    CHECKED, ClaimNumber, HEADER_BYTES, Ledger, LedgerHeader, RECORD_BYTES, Record, Status, flags,
    header_of,
};
pub use recipient_number::{ChunkRef, RecipientNumber};
