//! TODO head

use std::sync::Arc;

use crate::{
    clock::unix_now,
    config::Config,
    deliveries::Refusal,
    domain::delivery::DeliveryId,
    queue::{Job, Queue, QueueName},
    send::limits::Throttles,
    store::chunks::ChunkLists,
};

#[derive(Clone)]
pub struct FairQueue {
    pub chunks: ChunkLists,
    pub queue: Queue,
    pub throttles: Throttles,
    pub config: Arc<Config>,
}

impl FairQueue {
    /// Lets a delivery have jobs for its chunks, in its turn; how many it got now.
    pub async fn request_jobs(&self, id: &DeliveryId) -> Result<usize, Refusal> {
        self.chunks.join_fair_queue(id).await?;
        let named = self.assign_jobs().await?;
        Ok(named.iter().filter(|delivery| *delivery == id).count())
    }

    /// Names jobs, one at a time, as long as few jobs wait on the queue: so a small delivery never waits behind all of a large one,
    /// nor behind a thousand others. Which delivery is next is decided by fair queueing: the one whose next job ends first in a
    /// virtual time that goes on by what is sent for each. A delivery of ten has a short job, and one that comes later is not behind
    /// in service.
    async fn assign_jobs(&self) -> Result<Vec<DeliveryId>, Refusal> {
        let mut named = Vec::new();
        loop {
            let waiting = self.queue.waiting(QueueName::Chunks).await?;
            let free = self.config.send.workers.saturating_sub(waiting);
            let wanting = match free {
                0 => Vec::new(),
                free => self.chunks.next_in_fair_queue(free).await?,
            };
            // whoever ends a chunk next goes on with it
            if wanting.is_empty() || named.len() >= 2 * self.config.send.workers {
                return Ok(named);
            }
            for (id, at) in wanting {
                match self.assign_job(&id, at).await {
                    Ok(true) => named.push(id),
                    Ok(false) => self.chunks.leave_fair_queue(&id).await?,
                    Err(Refusal::Unavailable(error)) if error.may_pass() => {
                        return Err(error.into());
                    }
                    Err(Refusal::Queue(error)) => return Err(error.into()),
                    Err(error) => {
                        // what is wrong with one delivery holds up no other
                        tracing::error!(delivery.id = %id, %error, "no job can be named for it");
                        self.chunks.leave_fair_queue(&id).await?;
                    }
                }
            }
        }
    }

    /// False if it wants none, or may have no more at a time.
    async fn assign_job(&self, id: &DeliveryId, at: f64) -> Result<bool, Refusal> {
        if self.throttles.delivery_breaker(id, unix_now()).is_some() {
            return Ok(false);
        }
        let Some((chunk, round)) = self
            .chunks
            .pick_for_jobs(id, (self.config.send.chunks_in_flight, 1), at, unix_now())
            .await?
            .first()
            .copied()
        else {
            return Ok(false);
        };
        let job = Job::SendChunk { delivery: id.to_string(), chunk, round };
        self.queue
            .enqueue(QueueName::Chunks, &format!("{id}:{chunk}:{round}"), &job.encode())
            .await?;
        self.chunks.note_job(id, at).await?;
        Ok(true)
    }
}
