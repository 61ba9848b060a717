//! The services for all steps of a delivery, which HTTP, queue workers and the scheduler use.

use crate::send::{
    chunk::ChunkSender,
    confirm::{Approvals, Confirmations, QueueConfirmations},
    define::{Copies, Definitions, Recurrences, Uploads},
    limits::ThrottleWatch,
    operate::{Controls, HeldStore, InDoubtRecipients, Proofs, Retention},
    prepare::Preparations,
    recover::{Finishes, IndexSweep, Reconciler, RedisPulse, StoreHeartbeat},
    release::{DueWaves, FairQueue, Starts},
};

/// All steps. Cheap to clone, and so is every service in it.
#[derive(Clone)]
pub struct Journey {
    pub define: DefineSteps,
    pub preparations: Preparations,
    pub confirm: ConfirmSteps,
    pub release: ReleaseSteps,
    pub chunks: ChunkSender,
    pub throttle_watch: ThrottleWatch,
    pub recover: RecoverSteps,
    pub operate: OperateSteps,
}

/// Create, change, copy and delete deliveries; upload audiences; recurring deliveries.
#[derive(Clone)]
pub struct DefineSteps {
    pub definitions: Definitions,
    pub uploads: Uploads,
    pub copies: Copies,
    pub recurrences: Recurrences,
}

/// Approve and confirm, by HTTP or by a job.
#[derive(Clone)]
pub struct ConfirmSteps {
    pub approvals: Approvals,
    pub confirmations: Confirmations,
    pub from_queue: QueueConfirmations,
}

/// Release due waves, start confirmed deliveries, share the chunk workers fairly.
#[derive(Clone)]
pub struct ReleaseSteps {
    pub due_waves: DueWaves,
    pub starts: Starts,
    pub fair_queue: FairQueue,
}

/// Repair deliveries after a crash; finish deliveries.
#[derive(Clone)]
pub struct RecoverSteps {
    pub reconciler: Reconciler,
    pub pulse: RedisPulse,
    pub heartbeat: StoreHeartbeat,
    pub sweep: IndexSweep,
    pub finishes: Finishes,
}

/// Pause, resume, stop, resolve doubt, send proofs, release a held store, remove old logs and
/// deliveries.
#[derive(Clone)]
pub struct OperateSteps {
    pub controls: Controls,
    pub in_doubt: InDoubtRecipients,
    pub retention: Retention,
    pub proofs: Proofs,
    pub held_store: HeldStore,
}
