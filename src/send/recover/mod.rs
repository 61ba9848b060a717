//! Recovery: moves every delivery on after a crash.
//!
//! The state of a delivery, its waves and its ledgers are the truth. Jobs and lists are hints: they
//! may be lost or doubled. Every daemon runs these passes for all deliveries.
//!
//! Entry points:
//! - [`Reconciler::reconcile_all`]: each second, for every delivery that moves by itself;
//! - [`IndexSweep::sweep`]: each minute, for every delivery that fell off a list;
//! - [`RedisPulse::pulse`]: watches whether Redis takes writes, and whether it has restarted;
//! - [`Liveness`]: how long a worker has shown no progress;
//! - [`Takeovers`]: takes chunks over from dead holders;
//! - [`PoisonedChunks`]: sets a chunk aside that kills its workers or cannot be sent;
//! - [`Finishes::finish`] and [`Recounts`]: the end of a delivery, after a full count.
//!
//! Not here:
//! - leases, and the replay of batches after a roll-back: `crate::send::chunk`;
//! - the recovery of jobs whose worker has died: `crate::queue`;
//! - the decision of a person about recipients in doubt: `crate::send::operate`.

mod chunk_repair;
mod finishes;
mod halt_repair;
mod index_sweep;
mod liveness;
mod poisoned_chunks;
mod reconciler;
mod recounts;
mod redis_pulse;
mod redis_state;
mod sending_repair;
mod store_heartbeat;
mod takeovers;

pub use chunk_repair::ChunkRepair;
pub use finishes::Finishes;
pub use halt_repair::HaltRepair;
pub use index_sweep::IndexSweep;
pub use liveness::Liveness;
pub use poisoned_chunks::PoisonedChunks;
pub use reconciler::Reconciler;
pub use recounts::Recounts;
pub use redis_pulse::RedisPulse;
pub use redis_state::RedisState;
pub use sending_repair::SendingRepair;
pub use store_heartbeat::StoreHeartbeat;
pub use takeovers::Takeovers;
