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
        self.store.open_all(id, plan.chunks).await?;
        if self.step(id, Action::Start, |_, _| {}).await? {
            self.feed(id).await?;
        }
        Ok(())
    }

    /// Makes the ledgers and begins the counters, unless that was done.
    pub(super) async fn lay_out(&self, id: &DeliveryId, plan: &Plan) -> Result<(), StoreError> {
        if self.store.counts_begun(id).await? {
            return Ok(());
        }
        for chunk in 0..plan.chunks {
            let ledger = Ledger::new(recipients_in(plan, chunk));
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

/// All chunks are full but the last.
fn recipients_in(plan: &Plan, chunk: u32) -> u16 {
    let before = u64::from(chunk) * u64::from(plan.chunk_size);
    u16::try_from((plan.to_deliver - before).min(u64::from(plan.chunk_size))).unwrap_or(u16::MAX)
}
