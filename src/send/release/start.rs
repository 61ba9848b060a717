//! Release: a confirmed delivery gets its ledgers, and its chunks get jobs, a bounded number at a time.

use super::due_waves::DueWaves;
use crate::{
    deliveries::{Deliveries, Refusal},
    domain::{
        delivery::{Action, DeliveryId, Plan},
        ledger::{ChunkRef, Ledger},
    },
    queue::JobError,
    store::{StoreError, chunks::LedgerStore, schedule::ScheduleStore},
};

#[derive(Clone)]
pub struct Starts {
    pub deliveries: Deliveries,
    pub schedules: ScheduleStore,
    pub ledgers: LedgerStore,
    pub due_waves: DueWaves,
}

impl Starts {
    /// The job: makes the ledgers and opens the chunks. What is there already is left alone.
    pub async fn start(&self, id: &DeliveryId) -> Result<(), JobError> {
        let delivery = match self.deliveries.delivery(id).await {
            Ok(delivery) => delivery,
            Err(Refusal::NotFound) => return Ok(()),
            Err(other) => return Err(other.into()),
        };
        if delivery.state.after(Action::Start).is_err() {
            return Ok(());
        }
        let plan = delivery
            .document
            .plan
            .as_ref()
            .ok_or_else(|| JobError::Abort("a released delivery without a plan".into()))?;
        self.create_ledgers(id, plan).await?;
        self.due_waves
            .fair_queue
            .chunks
            .note_job_length(
                id,
                plan.to_deliver.min(plan.chunk_size.into()) as f64 / f64::from(plan.chunk_size),
            )
            .await?;
        self.due_waves.release_waves(&delivery, plan).await?;
        self.schedules.mark_released_ready(id, plan).await?;
        let started = self.deliveries.step(id, Action::Start, |document, _| {
            if let Some(release) = &mut document.confirmation {
                release.started = true;
            }
        });
        if started.await? {
            self.due_waves.fair_queue.request_jobs(id).await?;
        }
        Ok(())
    }

    /// Makes the ledgers and begins the counters, unless that was done.
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
