//! Decides which delivery gets the next chunk job, by virtual time.
//!
//! Few jobs wait on the queue at a time. A small delivery therefore never waits behind all jobs of
//! a large one, nor behind a thousand other deliveries. The next job goes to the delivery whose
//! next job ends first in virtual time. Virtual time advances as jobs are queued. A delivery of ten
//! recipients has a short job, so its turn comes soon. A delivery that joins later begins at the
//! present virtual time: it does not make up for the jobs that it missed.

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

/// Queues chunk jobs for all deliveries that want some.
#[derive(Clone)]
pub struct FairQueue {
    pub chunks: ChunkLists,
    pub queue: Queue,
    pub throttles: Throttles,
    pub config: Arc<Config>,
}

impl FairQueue {
    /// Puts a delivery into the fair queue and queues the jobs whose turn it is.
    ///
    /// Returns how many of these jobs belong to the delivery.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn request_jobs(&self, id: &DeliveryId) -> Result<usize, Refusal> {
        self.chunks.join_fair_queue(id).await?;
        let queued = self.assign_jobs().await?;
        Ok(queued.iter().filter(|delivery| *delivery == id).count())
    }

    /// Queues jobs one at a time, as long as few jobs wait. Returns the delivery of each job.
    async fn assign_jobs(&self) -> Result<Vec<DeliveryId>, Refusal> {
        let mut queued = Vec::new();
        loop {
            let waiting = self.queue.waiting(QueueName::Chunks).await?;
            let free = self.config.send.workers.saturating_sub(waiting);
            let wanting = match free {
                0 => Vec::new(),
                free => self.chunks.next_in_fair_queue(free).await?,
            };
            // the next call queues the rest: it comes when a worker ends a chunk
            if wanting.is_empty() || queued.len() >= 2 * self.config.send.workers {
                return Ok(queued);
            }
            for (id, at) in wanting {
                match self.assign_job(&id, at).await {
                    Ok(true) => queued.push(id),
                    Ok(false) => self.chunks.leave_fair_queue(&id).await?,
                    Err(Refusal::Unavailable(error)) if error.may_pass() => {
                        return Err(error.into());
                    }
                    Err(Refusal::Queue(error)) => return Err(error.into()),
                    Err(error) => {
                        // a fault of one delivery must not hold up the others
                        tracing::error!(
                            delivery.id = %id,
                            %error,
                            "no chunk job can be queued for this delivery"
                        );
                        self.chunks.leave_fair_queue(&id).await?;
                    }
                }
            }
        }
    }

    /// Queues one job of a delivery. False if its circuit breaker is open, if it wants no job, or
    /// if it may have no more at a time.
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
