//! TODO head

pub mod batch_encoding;
pub mod chunk_lists;
pub mod ledger_reads;
pub mod ledgers;
pub mod settlement;

pub use ledgers::{
    Batch, BatchAnswer, ChunkRef, Claim, Lease, LeaseVerdict, Report, ReportEffect, Scripts, Taken, TakeoverGrounds,
};
pub use settlement::{Evidence, Settlement};
