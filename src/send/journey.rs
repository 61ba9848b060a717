//! The steps of the journey, room by room: what HTTP, jobs and cron call.

use crate::send::{
    chunk::ChunkSender,
    confirm::{Confirmations, QueueConfirmations},
    define::{Copies, Definitions, Recurrences, Uploads},
    limits::ThrottleWatch,
    operate::{Controls, InDoubtRecipients, Proofs, Retention},
    prepare::Preparations,
    recover::{Finishes, IndexSweep, Reconciler, RedisPulse},
    release::{DueWaves, FairQueue, Starts},
};

/// Cheap to clone, as everything in it.
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

#[derive(Clone)]
pub struct DefineSteps {
    pub definitions: Definitions,
    pub uploads: Uploads,
    pub copies: Copies,
    pub recurrences: Recurrences,
}

#[derive(Clone)]
pub struct ConfirmSteps {
    pub confirmations: Confirmations,
    pub from_queue: QueueConfirmations,
}

#[derive(Clone)]
pub struct ReleaseSteps {
    pub due_waves: DueWaves,
    pub starts: Starts,
    pub fair_queue: FairQueue,
}

#[derive(Clone)]
pub struct RecoverSteps {
    pub reconciler: Reconciler,
    pub pulse: RedisPulse,
    pub sweep: IndexSweep,
    pub finishes: Finishes,
}

#[derive(Clone)]
pub struct OperateSteps {
    pub controls: Controls,
    pub in_doubt: InDoubtRecipients,
    pub retention: Retention,
    pub proofs: Proofs,
}
