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

    /// Lets a delivery have jobs for its chunks, in its turn; how many it got now.
    pub async fn feed(&self, id: &DeliveryId) -> Result<usize, Refusal> {
        self.store.wants_jobs(id).await?;
        let named = self.name_jobs().await?;
        Ok(named.iter().filter(|delivery| *delivery == id).count())
    }

    /// Names jobs, one at a time, for the delivery that had fewest, as long as few jobs wait on the queue: so a small delivery
    /// never waits behind all of a large one, nor behind a thousand others.
    async fn name_jobs(&self) -> Result<Vec<DeliveryId>, Refusal> {
        let mut named = Vec::new();
        loop {
            let waiting = self.queue.waiting(QueueName::Chunks).await?;
            let free = self.config.send.workers.saturating_sub(waiting);
            let wanting = match free {
                0 => Vec::new(),
                free => self.store.wanting(free).await?,
            };
            // whoever ends a chunk next goes on with it
            if wanting.is_empty() || named.len() >= 2 * self.config.send.workers {
                return Ok(named);
            }
            for id in wanting {
                let offers = self.store.offer(&id, self.config.send.chunks_in_flight, 1, unix_now()).await?;
                for (chunk, round) in &offers {
                    let job = Job::SendChunk { delivery: id.to_string(), chunk: *chunk, round: *round };
                    self.queue.enqueue(QueueName::Chunks, &format!("{id}:{chunk}:{round}"), &job.encode()).await?;
                }
                self.store.got_jobs(&id, offers.len()).await?;
                named.extend(offers.iter().map(|_| id.clone()));
            }
        }
    }
}
