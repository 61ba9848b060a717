//! Release: a confirmed delivery gets its ledgers, and its chunks get jobs, a bounded number at a time.

use crate::{
    deliveries::{Context, Refusal, unix_now},
    domain::{
        delivery::{Action, DeliveryId, Plan},
        ledger::Ledger,
    },
    queue::{Job, JobError, QueueName},
    store::{StoreError, chunks::ChunkRef},
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
        self.store.note_length(id, plan.to_deliver.min(plan.chunk_size.into()) as f64 / f64::from(plan.chunk_size)).await?;
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
    pub(crate) async fn lay_out(&self, id: &DeliveryId, plan: &Plan) -> Result<(), StoreError> {
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

    /// Names jobs, one at a time, as long as few jobs wait on the queue: so a small delivery never waits behind all of a large one,
    /// nor behind a thousand others. Which delivery is next is decided by fair queueing: the one whose next job ends first in a
    /// virtual time that goes on by what is sent for each. A delivery of ten has a short job, and one that comes later is not behind
    /// in service.
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
            for (id, at) in wanting {
                match self.name_job(&id, at).await {
                    Ok(true) => named.push(id),
                    Ok(false) => self.store.wants_none(&id).await?,
                    Err(Refusal::Unavailable(error)) if error.may_pass() => return Err(error.into()),
                    Err(Refusal::Queue(error)) => return Err(error.into()),
                    Err(error) => {
                        // what is wrong with one delivery holds up no other
                        tracing::error!(delivery.id = %id, %error, "no job can be named for it");
                        self.store.wants_none(&id).await?;
                    }
                }
            }
        }
    }

    /// False if it wants none, or may have no more at a time.
    async fn name_job(&self, id: &DeliveryId, at: f64) -> Result<bool, Refusal> {
        if self.throttle.delivery_broken(id, unix_now()).is_some() {
            return Ok(false);
        }
        let Some((chunk, round)) =
            self.store.offer(id, (self.config.send.chunks_in_flight, 1), at, unix_now()).await?.first().copied()
        else {
            return Ok(false);
        };
        let job = Job::SendChunk { delivery: id.to_string(), chunk, round };
        self.queue.enqueue(QueueName::Chunks, &format!("{id}:{chunk}:{round}"), &job.encode()).await?;
        self.store.got_job(id, at).await?;
        Ok(true)
    }
}
