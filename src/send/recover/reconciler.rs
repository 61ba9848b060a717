//! The reconciler: finds what a crash left behind, on every replica, once a second. Whatever it does may be done twice.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use tokio::time::MissedTickBehavior;

use crate::{
    deliveries::{Context, Decision, Refusal, unix_now},
    domain::{
        delivery::{Action, Delivery, DeliveryId, DeliveryState},
        ledger::{Counts, LedgerHeader},
    },
    metrics,
    queue::{Job, JobState, QueueError, QueueName},
    send::chunk::LeasedChunk,
    store::{
        StoreError,
        chunks::{ChunkRef, Taken, TakeoverGrounds},
        may_pass,
    },
};

/// A step whose job was not begun for so long is enqueued again.
const STEP_PATIENCE: Duration = Duration::from_secs(3);
/// Deliveries looked after at a time: the pass must not wait for the largest one.
const AT_A_TIME: usize = 16;

impl Context {
    /// Looks after every delivery that is moving.
    pub async fn reconcile(&self) -> Result<(), StoreError> {
        self.watch.run(&self.store.run_id().await?);
        let ids = stream::iter(self.store.moving().await?);
        let mut looks = ids.map(|id| async move { (self.look_after(&id).await, id) }).buffer_unordered(AT_A_TIME);
        while let Some((looked, id)) = looks.next().await {
            match looked {
                Ok(()) => {}
                Err(Refusal::Unavailable(error)) if error.may_pass() => return Err(error),
                Err(Refusal::Queue(QueueError::Unavailable(error))) if may_pass(&error) => return Err(error.into()),
                // what is wrong with one delivery holds up no other
                Err(other) => tracing::error!(delivery.id = %id, error = %other, "the reconciler cannot look after it"),
            }
        }
        self.watch.tidy(Instant::now());
        Ok(())
    }

    /// Asks Redis all the time whether it takes writes, until the shutdown: see [`crate::send::recover::liveness`]. That it answers is not
    /// enough, for without memory it answers and refuses every holder's beat. Another run of
    /// it may have forgotten something.
    pub async fn pulse(&self) {
        let mut beat = tokio::time::interval(self.config.send.lease() / 8);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = String::new();
        while self.shutdown.run_until_cancelled(beat.tick()).await.is_some() {
            let asked = Instant::now();
            let answer = self.store.takes_writes().await;
            let takes_writes = answer.is_ok();
            self.note_redis(answer);
            if !takes_writes {
                continue;
            }
            metrics::redis_round_trip(asked.elapsed());
            self.watch.answered(Instant::now());
            let Ok(run) = self.store.run_id().await else { continue };
            if known == run {
                continue;
            }
            if !known.is_empty() {
                metrics::redis_restarted();
                if let Err(error) = self.recall_released().await {
                    tracing::warn!(%error, "what Redis may have forgotten is looked at again");
                    continue;
                }
                self.observe_durability().await;
            }
            known = run;
        }
    }

    /// The clock may have been set back: what waits for a time on the old one is looked at now, and waits again if it has to.
    pub async fn look_at_all(&self) {
        let look = async {
            for id in self.store.moving().await? {
                self.store.look_at_all(&id, unix_now()).await?;
            }
            Ok::<_, StoreError>(())
        };
        if let Err(error) = look.await {
            tracing::warn!(%error, "chunks that wait for a time are not looked at again");
        }
    }

    async fn look_after(&self, id: &DeliveryId) -> Result<(), Refusal> {
        let Some(delivery) = self.store.delivery(id).await? else {
            return Ok(self.store.at_rest(id).await?);
        };
        self.note_head(id, &delivery.document.audit).await?;
        match delivery.state {
            DeliveryState::Preparing => self.revive_preparation(&delivery).await,
            DeliveryState::StartPending => self.revive_start(&delivery).await,
            DeliveryState::InProgress => self.keep_sending(&delivery).await,
            DeliveryState::Pausing | DeliveryState::Stopping => self.bring_to_rest(&delivery).await,
            _ => {
                self.store.at_rest(id).await?;
                // it may have been set in motion in between
                if self.store.state(id).await?.is_some_and(DeliveryState::is_moving) {
                    self.store.in_motion(id).await?;
                }
                Ok(())
            }
        }
    }

    async fn revive_preparation(&self, delivery: &Delivery) -> Result<(), Refusal> {
        let progress = self.store.preparation(&delivery.id).await?;
        let still = self.watch.see(&format!("prepare {}", delivery.id), (delivery.revision, progress.beat), Instant::now());
        if still >= self.config.send.lease() {
            self.watch.see(&format!("prepare {}", delivery.id), (0, 0), Instant::now());
            self.enqueue_preparation(&delivery.id, u64::from(unix_now())).await?;
        }
        Ok(())
    }

    async fn revive_start(&self, delivery: &Delivery) -> Result<(), Refusal> {
        let name = format!("start {}", delivery.id);
        if self.watch.see(&name, (delivery.revision, 0), Instant::now()) >= STEP_PATIENCE {
            self.watch.see(&name, (0, 0), Instant::now());
            self.enqueue_start(&delivery.id, u64::from(unix_now())).await?;
        }
        Ok(())
    }

    async fn keep_sending(&self, delivery: &Delivery) -> Result<(), Refusal> {
        let id = &delivery.id;
        let Some(plan) = &delivery.document.plan else { return Ok(()) };
        let released = self.release_waves(delivery, plan).await?;
        self.open_waves(id, plan, &released).await?;
        let offered = self.mend_offered(delivery).await?;
        self.expire_aside(delivery).await?;
        let named = self.feed(id).await?;
        let counts = self.store.counts(id).await?;
        if offered + named > 0 {
            return Ok(());
        }
        self.mend_unoffered(delivery, &counts).await?;
        let left = counts.open().saturating_sub(self.open_aside(id).await? + released.unreleased);
        if left > 0 && self.store.waiting(id).await? == 0 {
            // in neither set although something is left: the sets are hints, the ledgers are not
            self.store.reopen_released(id, plan).await?;
        } else if counts.open() == 0 {
            let job = Job::FinishDelivery { delivery: id.to_string() };
            self.queue.enqueue(QueueName::Steps, &format!("finish:{id}:at:{}", unix_now()), &job.encode()).await?;
        }
        Ok(())
    }

    /// Looks at the chunks that jobs were named for: lost jobs are named again, dead holders are fenced. How many there are.
    async fn mend_offered(&self, delivery: &Delivery) -> Result<usize, Refusal> {
        let offered = self.store.offered(&delivery.id).await?;
        let chunks: Vec<u32> = offered.iter().map(|(chunk, ..)| *chunk).collect();
        let headers = self.store.headers(&delivery.id, &chunks).await?;
        for ((chunk, _, round), header) in offered.iter().zip(headers) {
            let at = ChunkRef { delivery: delivery.id.clone(), chunk: *chunk };
            if header.owner == 0 {
                self.mend_job(&at, *round, header).await?;
            } else {
                self.mend_lease(delivery, &at, header).await?;
            }
        }
        Ok(offered.len())
    }

    /// Nobody holds the chunk: its job waits on the queue, or is gone.
    async fn mend_job(&self, at: &ChunkRef, round: u32, header: LedgerHeader) -> Result<(), Refusal> {
        let name = format!("job {}:{}", at.delivery, at.chunk);
        let still = self.watch.see(&name, (u64::from(round), u64::from(header.epoch)), Instant::now());
        if still < STEP_PATIENCE {
            return Ok(());
        }
        let job = format!("{}:{}:{round}", at.delivery, at.chunk);
        let alive = self
            .queue
            .status(QueueName::Chunks, &job)
            .await?
            .is_some_and(|job| !matches!(job.state, JobState::Done | JobState::Dead | JobState::Lost));
        if !alive && self.store.reopen(at, round, unix_now()).await? {
            metrics::revived();
            tracing::warn!(delivery.id = %at.delivery, chunk = at.chunk, "its job was gone");
        }
        Ok(())
    }

    /// Somebody holds the chunk: fences the holder if it is dead, so that the next job finds the chunk free.
    pub(super) async fn mend_lease(&self, delivery: &Delivery, at: &ChunkRef, header: LedgerHeader) -> Result<(), Refusal> {
        let name = format!("lease {}:{}", at.delivery, at.chunk);
        let still = self.watch.see(&name, (u64::from(header.epoch), u64::from(header.beat)), Instant::now());
        let proven_dead = self.dead_owners.contains(&header.owner);
        if !proven_dead && still < self.config.send.lease() {
            return Ok(());
        }
        let Some(plan) = &delivery.document.plan else { return Ok(()) };
        let resend_after_s = self.resend_after_s(plan, &self.store.wave_of(at, plan).await?);
        let (still, dead) = (Some((header.epoch, header.beat)), proven_dead.then_some(header.owner));
        let grounds = TakeoverGrounds { still, dead, resends: resend_after_s.is_some() };
        if let Taken::Yes(lease, _) = self.store.take(at, self.owner, grounds, unix_now()).await? {
            self.release_after_crash(LeasedChunk::new(at.clone(), lease, resend_after_s)).await?;
            metrics::taken_over();
            tracing::warn!(delivery.id = %at.delivery, chunk = at.chunk, proven_dead, "taken over from a dead worker");
        }
        Ok(())
    }

    /// Pausing and stopping end when nothing is being attempted any more.
    async fn bring_to_rest(&self, delivery: &Delivery) -> Result<(), Refusal> {
        self.mend_offered(delivery).await?;
        if delivery.state == DeliveryState::Stopping {
            // it may have been stopped before it was started
            if let Some(plan) = &delivery.document.plan {
                self.lay_out(&delivery.id, plan).await?;
            }
            for chunk in 0..delivery.document.plan.as_ref().map_or(0, |plan| plan.chunks) {
                self.store.cancel(&ChunkRef { delivery: delivery.id.clone(), chunk }, unix_now()).await?;
            }
        }
        let stopped = delivery.state == DeliveryState::Stopping;
        let counts = self.store.counts(&delivery.id).await?;
        // a claim that is given back after the pass of cancel is pending again
        if counts.attempting > 0 || stopped && counts.open() > 0 {
            return self.mend_unoffered(delivery, &counts).await;
        }
        let state = delivery.state.after(Action::Quiet)?;
        let mut document = delivery.document.clone();
        if stopped {
            document.ended_at = Some(Timestamp::now());
            // it may have been stopped before it was started
            document.release.iter_mut().for_each(|release| release.started = true);
        }
        let decision = Decision { state, document, answer: (), act: None };
        // not with a newer revision: it may have been resumed and paused again since the counters were read
        if self.commit(&delivery.id, delivery.revision, "versand", &[], decision).await?.is_some() && stopped {
            metrics::delivery_ended("stopped");
        }
        Ok(())
    }

    /// Something is being attempted although no job was named: a job that was thought lost came late, and its worker died.
    async fn mend_unoffered(&self, delivery: &Delivery, counts: &Counts) -> Result<(), Refusal> {
        let chunks: Vec<u32> = (0..delivery.document.plan.as_ref().map_or(0, |plan| plan.chunks)).collect();
        if counts.attempting == 0 {
            return Ok(());
        }
        for (chunk, header) in chunks.iter().zip(self.store.headers(&delivery.id, &chunks).await?) {
            if header.owner != 0 {
                self.mend_lease(delivery, &ChunkRef { delivery: delivery.id.clone(), chunk: *chunk }, header).await?;
            }
        }
        Ok(())
    }
}
