//! TODO head

pub mod batch_encoding;
pub mod chunk_lists;
pub mod fair_queue;
pub mod ledger_reads;
pub mod ledgers;
pub mod poisoned;
pub mod settlement;

pub use chunk_lists::ChunkLists;
pub use ledgers::LedgerStore;
pub use ledgers::{
    Batch, BatchAnswer, Claim, Lease, LeaseVerdict, Report, ReportEffect, Taken, TakeoverGrounds,
};
pub use settlement::Settlement;
