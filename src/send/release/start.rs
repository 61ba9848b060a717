//! The start of a confirmed delivery: its ledgers, its ready chunks and its first jobs.

use super::{due_waves::DueWaves, fair_queue::FairQueue};
use crate::{
    deliveries::{Deliveries, Refusal},
    domain::{
        delivery::{ALTERED_DOCUMENT, Action, DeliveryId, Plan, check_authority},
        ledger::{ChunkRef, Ledger},
    },
    queue::JobError,
    store::{
        StoreError,
        chunks::{ChunkLists, LedgerStore},
        schedule::ScheduleStore,
    },
};

/// Starts deliveries.
#[derive(Clone)]
pub struct Starts {
    pub deliveries: Deliveries,
    pub schedules: ScheduleStore,
    pub ledgers: LedgerStore,
    pub chunks: ChunkLists,
    pub due_waves: DueWaves,
    pub fair_queue: FairQueue,
}

impl Starts {
    /// The job: makes the ledgers and marks the chunks of released waves ready.
    ///
    /// Ledgers that are there already stay as they are, so the job may run twice.
    ///
    /// # Errors
    /// [`JobError::Retry`] if Redis does not answer; [`JobError::Abort`] if a part is damaged or
    /// altered.
    pub async fn start(&self, id: &DeliveryId) -> Result<(), JobError> {
        let delivery = match self.deliveries.delivery(id).await {
            Ok(delivery) => delivery,
            Err(Refusal::NotFound) => return Ok(()),
            Err(other) => return Err(other.into()),
        };
        // the reconciler names the job again once the store is released
        if delivery.state.after(Action::Start).is_err() || self.deliveries.store_is_held().await? {
            return Ok(());
        }
        let plan = delivery
            .document
            .plan
            .as_ref()
            .ok_or_else(|| JobError::Abort("a confirmed delivery without a plan".into()))?;
        if let Err(reason) = check_authority(&delivery.document) {
            Box::pin(self.deliveries.halt_altered(id, ALTERED_DOCUMENT)).await?;
            return Err(JobError::Abort(format!("not started: {reason}")));
        }
        self.create_ledgers(id, plan).await?;
        let job_length =
            plan.to_deliver.min(plan.chunk_size.into()) as f64 / f64::from(plan.chunk_size);
        self.chunks.note_job_length(id, job_length).await?;
        self.due_waves.release_waves(&delivery, plan).await?;
        self.schedules.mark_released_ready(id, plan).await?;
        let started = self.deliveries.step(id, Action::Start, |document, _| {
            if let Some(confirmation) = &mut document.confirmation {
                confirmation.started = true;
            }
        });
        if started.await? {
            self.fair_queue.request_jobs(id).await?;
        }
        Ok(())
    }

    /// Makes the ledgers and begins the counters, unless that is done already.
    pub(crate) async fn create_ledgers(
        &self,
        id: &DeliveryId,
        plan: &Plan,
    ) -> Result<(), StoreError> {
        if self.ledgers.counts_begun(id).await? {
            return Ok(());
        }
        for (chunk, place) in (0..).zip(self.schedules.places(id, plan).await?) {
            let ledger = Ledger::new(place.recipients).in_test_mode(plan.settings.smtp_test);
            self.ledgers.create_ledger(&ChunkRef { delivery: id.clone(), chunk }, &ledger).await?;
        }
        self.ledgers.begin_counts(id, plan.to_deliver).await
    }
}
