//! The job of a chunk: takes the lease, sends, and gives the chunk back.

use std::sync::Arc;

use super::{
    chunk_failure::{ChunkFailure, TABLE_OF_WAVES, is_early},
    chunk_run::WaveTime,
    lease_validity::{LeaseValidity, boottime_ms},
    leased_chunk::LeasedChunk,
    leased_chunk_sender::LeasedChunkSender,
    replay::LeaseHolder,
};
use crate::{
    clock::unix_now,
    config::Config,
    deliveries::{Deliveries, Refusal},
    domain::{
        delivery::{ALTERED_DOCUMENT, DeliveryId, check_authority},
        instant,
        ledger::ChunkRef,
    },
    queue::{Job, JobError, Queue, QueueName},
    send::{recover::PoisonedChunks, release::FairQueue},
    store::{
        chunks::{Taken, TakeoverGrounds},
        schedule::ScheduleStore,
    },
};

/// Runs the jobs of chunks.
#[derive(Clone)]
pub struct ChunkSender {
    pub deliveries: Deliveries,
    pub schedules: ScheduleStore,
    pub holder: LeaseHolder,
    pub poisoned: PoisonedChunks,
    pub sender: LeasedChunkSender,
    pub fair_queue: FairQueue,
    pub queue: Queue,
    pub config: Arc<Config>,
}

impl ChunkSender {
    /// The job: sends what is due in a chunk, for at most one job slice.
    ///
    /// If another worker holds the chunk, the job ends without an error.
    ///
    /// # Errors
    /// `Retry` if Redis does not answer; `Abort` if the chunk cannot be sent. If the job has the
    /// lease, an `Abort` sets the chunk aside.
    pub async fn send_chunk(&self, id: &DeliveryId, chunk: u32) -> Result<(), JobError> {
        let at = ChunkRef { delivery: id.clone(), chunk };
        let delivery = match self.deliveries.delivery(id).await {
            Ok(delivery) => delivery,
            Err(Refusal::NotFound) => return Ok(()),
            Err(other) => return Err(other.into()),
        };
        let Some(plan) = delivery.document.plan.clone().filter(|_| delivery.state.is_released())
        else {
            return Ok(());
        };
        if check_authority(&delivery.document).is_err() {
            // if the delivery is halted for an alteration already, this call changes nothing
            return Ok(Box::pin(self.deliveries.halt_altered(id, ALTERED_DOCUMENT)).await?);
        }
        if self.poisoned.chunks.is_poisoned(&at).await? {
            return Ok(());
        }
        let wave = self.schedules.wave_of(&at, &plan).await?;
        if wave.state.is_released() && is_early(&wave, unix_now()) {
            return Ok(Box::pin(self.deliveries.halt_altered(id, TABLE_OF_WAVES)).await?);
        }
        let Some(valid_until) = wave.valid_until(plan.settings.validity_hours) else {
            return Ok(());
        };
        let lease_ms = self.config.send.lease_ms;
        let asked_ms = boottime_ms();
        let resend_after_s = plan.resend_after_s(&wave, lease_ms, unix_now());
        let grounds =
            TakeoverGrounds { resends: resend_after_s.is_some(), ..TakeoverGrounds::default() };
        let Taken::Yes(lease, ledger) = self.holder.take_lease(&at, grounds).await? else {
            return Ok(());
        };
        let validity = LeaseValidity::new(lease_ms, asked_ms);
        let leased = LeasedChunk::new(at, lease, resend_after_s);
        let wave_time = WaveTime { wave, date: instant(wave.released_at), valid_until };
        let (leased, sent) =
            self.sender.send(leased, ledger, (delivery, plan), wave_time, validity).await;
        let sent = match sent {
            Err(ChunkFailure::Altered(part)) => {
                // before the chunk is free again
                Box::pin(self.deliveries.halt_altered(id, &part)).await?;
                Ok(())
            }
            Err(ChunkFailure::Job(error)) => Err(error),
            Ok(()) => Ok(()),
        };
        // also after a failure, so that the next holder does not wait until the lease expires
        self.poisoned.give_back_after_job(leased, &sent).await?;
        sent?;
        self.fair_queue.request_jobs(id).await?;
        self.queue_finish_if_done(id, &format!("finish:{id}:{chunk}:{}", lease.epoch)).await
    }

    /// Queues the job that finishes a delivery if none of its recipients is open any more.
    async fn queue_finish_if_done(&self, id: &DeliveryId, job_id: &str) -> Result<(), JobError> {
        if self.holder.ledgers.counts(id).await?.open() == 0 {
            let job = Job::FinishDelivery { delivery: id.to_string() };
            self.queue.enqueue(QueueName::Steps, job_id, &job.encode()).await?;
        }
        Ok(())
    }
}
