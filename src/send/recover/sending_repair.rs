//! TODO head

use jiff::Timestamp;

use super::{chunk_repair::ChunkRepair, poisoned_chunks::PoisonedChunks};
use crate::{
    clock::unix_now,
    deliveries::{Decision, Deliveries, Refusal},
    domain::{
        delivery::{Action, Delivery, DeliveryState},
        ledger::ChunkRef,
    },
    metrics,
    queue::{Job, QueueName},
    send::release::{DueWaves, Starts},
};

#[derive(Clone)]
pub struct SendingRepair {
    pub deliveries: Deliveries,
    pub due_waves: DueWaves,
    pub starts: Starts,
    pub repair: ChunkRepair,
    pub poisoned: PoisonedChunks,
}

impl SendingRepair {
    pub(super) async fn keep_sending(&self, delivery: &Delivery) -> Result<(), Refusal> {
        let id = &delivery.id;
        let Some(plan) = &delivery.document.plan else { return Ok(()) };
        let released = self.due_waves.release_waves(delivery, plan).await?;
        self.due_waves.mark_chunks_ready(id, plan, &released).await?;
        let offered = self.repair.repair_offered(delivery).await?;
        self.repair.takeovers.expire_poisoned(delivery).await?;
        let named = self.due_waves.fair_queue.request_jobs(id).await?;
        let counts = self.starts.ledgers.counts(id).await?;
        if offered + named > 0 {
            return Ok(());
        }
        self.repair.repair_unoffered(delivery, &counts).await?;
        let left = counts
            .open()
            .saturating_sub(self.poisoned.open_recipients(id).await? + released.unreleased);
        if left > 0 && self.repair.chunks.ready_count(id).await? == 0 {
            // in neither set although something is left: the sets are hints, the ledgers are not
            self.due_waves.schedules.mark_all_released_ready(id, plan).await?;
        } else if counts.open() == 0 {
            let job = Job::FinishDelivery { delivery: id.to_string() };
            self.repair
                .queue
                .enqueue(QueueName::Steps, &format!("finish:{id}:at:{}", unix_now()), &job.encode())
                .await?;
        }
        Ok(())
    }

    /// Pausing and stopping end when nothing is being attempted any more.
    pub(super) async fn bring_to_rest(&self, delivery: &Delivery) -> Result<(), Refusal> {
        self.repair.repair_offered(delivery).await?;
        if delivery.state == DeliveryState::Stopping {
            // it may have been stopped before it was started
            if let Some(plan) = &delivery.document.plan {
                self.starts.create_ledgers(&delivery.id, plan).await?;
            }
            for chunk in 0..delivery.document.plan.as_ref().map_or(0, |plan| plan.chunks) {
                self.starts
                    .ledgers
                    .cancel_pending(&ChunkRef { delivery: delivery.id.clone(), chunk }, unix_now())
                    .await?;
            }
        }
        let stopped = delivery.state == DeliveryState::Stopping;
        let counts = self.starts.ledgers.counts(&delivery.id).await?;
        // a claim that is given back after the pass of cancel is pending again
        if counts.attempting > 0 || stopped && counts.open() > 0 {
            return self.repair.repair_unoffered(delivery, &counts).await;
        }
        let state = delivery.state.after(Action::AtRest)?;
        let mut document = delivery.document.clone();
        if stopped {
            document.ended_at = Some(Timestamp::now());
            // it may have been stopped before it was started
            document.confirmation.iter_mut().for_each(|release| release.started = true);
        }
        let decision = Decision { state, document, answer: (), act: None };
        // not with a newer revision: it may have been resumed and paused again since the counters were read
        if self
            .deliveries
            .commit(&delivery.id, delivery.revision, "versand", &[], decision)
            .await?
            .is_some()
            && stopped
        {
            metrics::delivery_ended("stopped");
        }
        Ok(())
    }
}
