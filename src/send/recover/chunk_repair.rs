//! The repair of chunks: lost jobs are queued again, and dead holders lose their chunks.

use std::time::{Duration, Instant};

use super::{liveness::Liveness, takeovers::Takeovers};
use crate::{
    clock::unix_now,
    deliveries::Refusal,
    domain::{
        delivery::Delivery,
        ledger::{ChunkRef, Counts, LedgerHeader},
    },
    metrics,
    queue::{JobState, Queue, QueueName},
    store::chunks::{ChunkLists, LedgerStore},
};

/// How long a job may wait for its first worker before its state on the queue is checked.
const JOB_PATIENCE: Duration = Duration::from_secs(3);

/// Repairs the chunks of a delivery.
#[derive(Clone)]
pub struct ChunkRepair {
    pub takeovers: Takeovers,
    pub ledgers: LedgerStore,
    pub chunks: ChunkLists,
    pub queue: Queue,
    pub liveness: Liveness,
}

impl ChunkRepair {
    /// Checks the chunks that have jobs. Returns how many there are.
    ///
    /// A chunk whose job is lost becomes ready again. A dead holder loses its chunk.
    pub(super) async fn repair_with_jobs(&self, delivery: &Delivery) -> Result<usize, Refusal> {
        let with_jobs = self.chunks.with_jobs(&delivery.id).await?;
        let chunks: Vec<u32> = with_jobs.iter().map(|(chunk, ..)| *chunk).collect();
        let headers = self.ledgers.headers(&delivery.id, &chunks).await?;
        for ((chunk, _, round), header) in with_jobs.iter().zip(headers) {
            let at = ChunkRef { delivery: delivery.id.clone(), chunk: *chunk };
            if header.owner == 0 {
                self.repair_job(&at, *round, header).await?;
            } else {
                self.takeovers.take_over_if_dead(delivery, &at, header).await?;
            }
        }
        Ok(with_jobs.len())
    }

    /// Makes a chunk without a holder ready again if its job is gone.
    async fn repair_job(
        &self,
        at: &ChunkRef,
        round: u32,
        header: LedgerHeader,
    ) -> Result<(), Refusal> {
        let name = format!("job {}:{}", at.delivery, at.chunk);
        let mark = (u64::from(round), u64::from(header.epoch));
        if self.liveness.unchanged_for(&name, mark, Instant::now()) < JOB_PATIENCE {
            return Ok(());
        }
        let job_id = format!("{}:{}:{round}", at.delivery, at.chunk);
        let is_alive = self.queue.status(QueueName::Chunks, &job_id).await?.is_some_and(|job| {
            !matches!(job.state, JobState::Done | JobState::Dead | JobState::Lost)
        });
        if !is_alive && self.chunks.return_to_ready(at, round, unix_now()).await? {
            metrics::revived();
            tracing::warn!(
                delivery.id = %at.delivery,
                chunk = at.chunk,
                "the job of the chunk was lost"
            );
        }
        Ok(())
    }

    /// Checks all chunks of a delivery that has attempts but no jobs.
    ///
    /// Such a delivery exists if a job that was taken for lost came late, and its worker died.
    pub(super) async fn repair_without_jobs(
        &self,
        delivery: &Delivery,
        counts: &Counts,
    ) -> Result<(), Refusal> {
        if counts.attempting == 0 {
            return Ok(());
        }
        let count = delivery.document.plan.as_ref().map_or(0, |plan| plan.chunks);
        let chunks: Vec<u32> = (0..count).collect();
        for (chunk, header) in chunks.iter().zip(self.ledgers.headers(&delivery.id, &chunks).await?)
        {
            if header.owner != 0 {
                let at = ChunkRef { delivery: delivery.id.clone(), chunk: *chunk };
                self.takeovers.take_over_if_dead(delivery, &at, header).await?;
            }
        }
        Ok(())
    }
}
