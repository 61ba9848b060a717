//! TODO head

use std::time::Instant;

use super::{liveness::Liveness, reconciler::STEP_PATIENCE, takeover::Takeovers};
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

#[derive(Clone)]
pub struct ChunkRepair {
    pub takeovers: Takeovers,
    pub ledgers: LedgerStore,
    pub chunks: ChunkLists,
    pub queue: Queue,
    pub liveness: Liveness,
}

impl ChunkRepair {
    /// Looks at the chunks that jobs were named for: lost jobs are named again, dead holders are fenced. How many there are.
    pub(super) async fn repair_offered(&self, delivery: &Delivery) -> Result<usize, Refusal> {
        let offered = self.chunks.with_jobs(&delivery.id).await?;
        let chunks: Vec<u32> = offered.iter().map(|(chunk, ..)| *chunk).collect();
        let headers = self.ledgers.headers(&delivery.id, &chunks).await?;
        for ((chunk, _, round), header) in offered.iter().zip(headers) {
            let at = ChunkRef { delivery: delivery.id.clone(), chunk: *chunk };
            if header.owner == 0 {
                self.repair_job(&at, *round, header).await?;
            } else {
                self.takeovers.take_over_if_dead(delivery, &at, header).await?;
            }
        }
        Ok(offered.len())
    }

    /// Nobody holds the chunk: its job waits on the queue, or is gone.
    async fn repair_job(
        &self,
        at: &ChunkRef,
        round: u32,
        header: LedgerHeader,
    ) -> Result<(), Refusal> {
        let name = format!("job {}:{}", at.delivery, at.chunk);
        let still =
            self.liveness.see(&name, (u64::from(round), u64::from(header.epoch)), Instant::now());
        if still < STEP_PATIENCE {
            return Ok(());
        }
        let job = format!("{}:{}:{round}", at.delivery, at.chunk);
        let alive = self.queue.status(QueueName::Chunks, &job).await?.is_some_and(|job| {
            !matches!(job.state, JobState::Done | JobState::Dead | JobState::Lost)
        });
        if !alive && self.chunks.return_to_ready(at, round, unix_now()).await? {
            metrics::revived();
            tracing::warn!(delivery.id = %at.delivery, chunk = at.chunk, "its job was gone");
        }
        Ok(())
    }

    /// Something is being attempted although no job was named: a job that was thought lost came late, and its worker died.
    pub(super) async fn repair_unoffered(
        &self,
        delivery: &Delivery,
        counts: &Counts,
    ) -> Result<(), Refusal> {
        let chunks: Vec<u32> =
            (0..delivery.document.plan.as_ref().map_or(0, |plan| plan.chunks)).collect();
        if counts.attempting == 0 {
            return Ok(());
        }
        for (chunk, header) in chunks.iter().zip(self.ledgers.headers(&delivery.id, &chunks).await?)
        {
            if header.owner != 0 {
                self.takeovers
                    .take_over_if_dead(
                        delivery,
                        &ChunkRef { delivery: delivery.id.clone(), chunk: *chunk },
                        header,
                    )
                    .await?;
            }
        }
        Ok(())
    }
}
