//! Release: a confirmed delivery gets its ledgers, and its chunks get jobs, a bounded number at a time.

use super::{Context, Refusal, unix_now};
use crate::{
    domain::{delivery::Plan, id::DeliveryId, ledger::Ledger, state::Action},
    queue::{Job, JobError, QueueName},
    store::{StoreError, ledgers::ChunkRef},
};

impl Context {
    /// The job: makes the ledgers and opens the chunks. What is there already is left alone.
    pub async fn start(&self, id: &DeliveryId) -> Result<(), JobError> {
        let delivery = match self.delivery(id).await {
            Ok(delivery) => delivery,
            Err(Refusal::NotFound) => return Ok(()),
            Err(other) => return Err(other.into()),
        };
        if delivery.state.after(Action::Start).is_err() {
            return Ok(());
        }
        let plan = delivery.document.plan.as_ref().ok_or_else(|| JobError::Abort("a released delivery without a plan".into()))?;
        self.lay_out(id, plan).await?;
        self.release_waves(&delivery, plan).await?;
        self.store.open_released(id, plan).await?;
        let started = self.step(id, Action::Start, |document, _| {
            if let Some(release) = &mut document.release {
                release.started = true;
            }
        });
        if started.await? {
            self.feed(id).await?;
        }
        Ok(())
    }

    /// Makes the ledgers and begins the counters, unless that was done.
    pub(super) async fn lay_out(&self, id: &DeliveryId, plan: &Plan) -> Result<(), StoreError> {
        if self.store.counts_begun(id).await? {
            return Ok(());
        }
        for (chunk, place) in (0..).zip(self.store.places(id, plan).await?) {
            let ledger = Ledger::new(place.recipients).in_test_mode(plan.settings.smtp_test);
            self.store.create_ledger(&ChunkRef { delivery: id.clone(), chunk }, &ledger).await?;
        }
        self.store.begin_counts(id, plan.to_deliver).await
    }

    /// Names jobs for chunks that want attention, within the delivery's window; how many.
    pub async fn feed(&self, id: &DeliveryId) -> Result<usize, Refusal> {
        let offers = self.store.offer(id, self.config.send.chunks_in_flight, unix_now()).await?;
        for (chunk, round) in &offers {
            let job = Job::SendChunk { delivery: id.to_string(), chunk: *chunk, round: *round };
            self.queue.enqueue(QueueName::Chunks, &format!("{id}:{chunk}:{round}"), &job.encode()).await?;
        }
        Ok(offers.len())
    }
}
