//! The repair of deliveries in progress: releases due waves, repairs chunks and queues lost jobs.

use super::{chunk_repair::ChunkRepair, poisoned_chunks::PoisonedChunks, takeovers::Takeovers};
use crate::{
    clock::unix_now,
    deliveries::Refusal,
    domain::delivery::Delivery,
    queue::{Job, Queue, QueueName},
    send::release::{DueWaves, FairQueue},
    store::{chunks::LedgerStore, schedule::ScheduleStore},
};

/// Keeps deliveries in progress moving.
#[derive(Clone)]
pub struct SendingRepair {
    pub due_waves: DueWaves,
    pub fair_queue: FairQueue,
    pub chunk_repair: ChunkRepair,
    pub takeovers: Takeovers,
    pub poisoned: PoisonedChunks,
    pub schedules: ScheduleStore,
    pub ledgers: LedgerStore,
    pub queue: Queue,
}

impl SendingRepair {
    /// Makes sure that a delivery in progress goes on, or that it is finished.
    pub(super) async fn keep_sending(&self, delivery: &Delivery) -> Result<(), Refusal> {
        let id = &delivery.id;
        let Some(plan) = &delivery.document.plan else { return Ok(()) };
        let released = self.due_waves.release_waves(delivery, plan).await?;
        self.due_waves.mark_chunks_ready(id, plan, &released).await?;
        let with_jobs = self.chunk_repair.repair_with_jobs(delivery).await?;
        self.takeovers.expire_poisoned(delivery).await?;
        let queued = self.fair_queue.request_jobs(id).await?;
        let counts = self.ledgers.counts(id).await?;
        if with_jobs + queued > 0 {
            return Ok(());
        }
        self.chunk_repair.repair_without_jobs(delivery, &counts).await?;
        let waiting = self.poisoned.open_recipients(id).await? + released.unreleased;
        let left = counts.open().saturating_sub(waiting);
        if left > 0 && self.poisoned.chunks.ready_count(id).await? == 0 {
            // recipients are open, but their chunks are in no list: lists are hints
            self.schedules.mark_all_released_ready(id, plan).await?;
        } else if counts.open() == 0 {
            let job = Job::FinishDelivery { delivery: id.to_string() };
            let job_id = format!("finish:{id}:at:{}", unix_now());
            self.queue.enqueue(QueueName::Steps, &job_id, &job.encode()).await?;
        }
        Ok(())
    }
}
