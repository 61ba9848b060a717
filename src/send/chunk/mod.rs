//! TODO head

pub mod chunk_sender;
pub mod claim;
pub mod connection_worker;
pub mod expiry;
pub mod lease_validity;
pub mod ledger_writer;
pub mod replay;
pub mod writer_channel;

pub use replay::{GivenBackChunks, LeasedChunk};
