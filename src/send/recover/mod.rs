//! TODO head

pub mod chunk_repair;
pub mod finish;
pub mod index_sweep;
pub mod liveness;
pub mod poisoned_chunks;
pub mod reconciler;
pub mod recount;
pub mod redis_pulse;
pub mod redis_state;
pub mod sending_repair;
pub mod takeover;

pub use chunk_repair::ChunkRepair;
pub use finish::Finishes;
pub use index_sweep::IndexSweep;
pub use liveness::Liveness;
pub use poisoned_chunks::PoisonedChunks;
pub use reconciler::Reconciler;
pub use recount::Recounts;
pub use redis_pulse::RedisPulse;
pub use redis_state::RedisState;
pub use sending_repair::SendingRepair;
pub use takeover::Takeovers;
