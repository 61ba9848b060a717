//! TODO head

pub mod chunk_sender;
pub mod chunk_sending;
pub mod claim;
pub mod connection_worker;
pub mod expiry;
pub mod late_exclusion;
pub mod lease_validity;
pub mod ledger_writer;
pub mod replay;
pub mod writer_channel;

pub use chunk_sender::ChunkSender;
pub use chunk_sending::ChunkSending;
pub use late_exclusion::LateExclusions;
pub use ledger_writer::LedgerAccess;
pub use replay::{GivenBackChunks, LeaseHolder, LeasedChunk};
