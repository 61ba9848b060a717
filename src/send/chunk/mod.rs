//! Sends one chunk: from the lease to the last record.
//!
//! A job names a chunk. [`ChunkSender`] takes the lease, and [`LeasedChunkSender`] opens the
//! connections. Each connection worker sends messages and reports each outcome to the ledger
//! writer. The ledger writer is the only task that writes the ledger of the chunk. It sends
//! reports and claims to Redis in batches.
//!
//! Entry points:
//! - [`ChunkSender::send_chunk`]: the job of a chunk;
//! - [`LeaseHolder`]: takes leases, gives chunks back, replays batches after a roll-back, and fails
//!   open recipients after the validity period;
//! - [`LeasedChunk`]: a chunk as its lease holder knows it.
//!
//! Not here:
//! - the scripts that change a ledger: `crate::store::chunks`;
//! - the choice of the next chunk: `crate::send::release`;
//! - limits, circuit breakers and connection permits: `crate::send::limits`;
//! - the take-over from a dead holder, and poisoned chunks: `crate::send::recover`;
//! - the SMTP transaction: `crate::mail::smtp`.

mod chunk_failure;
mod chunk_run;
mod chunk_sender;
mod claim_queue;
mod connection_worker;
mod expiry;
mod granted_claim;
mod job_slice;
mod late_exclusion;
mod lease_validity;
mod leased_chunk;
mod leased_chunk_sender;
mod ledger_access;
mod ledger_writer;
mod ready_message;
mod record_count;
mod replay;
mod start_right;
mod transaction_report;
mod writer_channel;

pub use chunk_sender::ChunkSender;
pub use late_exclusion::LateExclusions;
pub use leased_chunk::LeasedChunk;
pub use leased_chunk_sender::LeasedChunkSender;
pub use ledger_access::LedgerAccess;
pub use replay::{GivenBackChunks, LeaseHolder};
