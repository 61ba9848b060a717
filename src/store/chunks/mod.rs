//! Chunks in Redis: ledgers, leases, claims and reports, and which chunks need a job.
//!
//! A ledger is one packed string per chunk. The Lua scripts of this folder write it, and keep the
//! live counters right in the same step. The scripts of `store/tracking` write the tracking bytes
//! of records, and make a recipient in doubt sent after a human hit. `docs/protocol.md` describes
//! the scripts as a whole.
//!
//! Entry points:
//! - [`LedgerStore`] takes, renews and gives back leases. It writes a [`Batch`] of reports and
//!   claims, and reads ledgers, live counters and replies. It also changes recipients without a
//!   report: stop, in-doubt resolution, roll-back, late exclusion.
//! - [`ChunkLists`] knows which chunks are open, offered or poisoned, and holds the fair queue.
//!
//! A chunk is *open* if it needs a job, and *offered* if it has one. These lists are hints: the
//! ledgers are the truth.
//!
//! Not here: the layout of a ledger is in [`crate::domain::ledger`]. The use of leases and batches
//! is in `send::chunk`, takeover and repair in `send::recover`. The content of chunks is in
//! [`crate::store::audience`].

mod batch;
mod batch_encoding;
mod chunk_lists;
mod claim_and_record;
mod leases;
mod ledger_reads;
mod ledgers;
mod poisoned;
mod settlement;
mod waiting_deliveries;

pub use batch::{Batch, BatchAnswer, Claim, Report, ReportEffect};
pub use chunk_lists::ChunkLists;
pub use leases::{Lease, LeaseVerdict, Taken, TakeoverGrounds};
pub use ledgers::LedgerStore;
pub use settlement::Settlement;
