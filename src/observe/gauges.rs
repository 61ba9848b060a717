//! What the daemon tells of itself: gauges, and the check that nothing was lost.

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::atomic::Ordering,
    time::Instant,
};

use crate::{
    deliveries::{Context, unix_now},
    domain::{
        delivery::{DeliveryId, DeliveryState},
        ledger::{Counts, Status},
    },
    metrics,
    queue::FirstJob,
    store::{Durability, StoreError},
};

impl Context {
    /// The task: reconciles, and forgets what it has seen if Redis did not answer throughout. Like every task it says whether it succeeded.
    pub async fn reconcile_all(&self) -> bool {
        let reconciled = self.reconcile().await;
        if let Err(error) = &reconciled {
            self.watch.reset();
            // that Redis is away was said
            if self.redis_writable.load(Ordering::Relaxed) {
                tracing::warn!(%error, "the reconciler waits for Redis");
            }
        }
        reconciled.is_ok()
    }

    /// Says once when Redis takes no writes, and once when it does again.
    pub(crate) fn note_redis(&self, answer: Result<(), StoreError>) {
        let writable = answer.is_ok();
        metrics::redis(writable || answer.as_ref().is_err_and(StoreError::is_refusal), writable);
        if self.redis_writable.swap(writable, Ordering::Relaxed) == writable {
            return;
        }
        match answer {
            Ok(()) => tracing::warn!("Redis takes writes again: what waited goes on"),
            Err(error) => tracing::error!(%error, "Redis takes no writes: nothing is sent until it does"),
        }
    }

    /// The task: asks what Redis promises, and says so when that has changed.
    pub async fn observe_durability(&self) -> bool {
        let before = self.store.promised();
        match self.store.durability().await {
            Ok(now) => {
                metrics::redis_durability(now.word(), &Durability::WORDS);
                if before.is_some_and(|before| before != now) {
                    tracing::warn!("what Redis promises has changed: {now}");
                }
                true
            }
            Err(error) => {
                tracing::debug!(%error, "Redis does not say what it promises");
                false
            }
        }
    }

    /// The task: sets the gauges.
    pub async fn observe(&self) -> bool {
        // the later figure first: what is accepted meanwhile is not recorded yet
        let recorded = self.acceptances.load(Ordering::Relaxed);
        metrics::acceptances(self.relays.accepted(), recorded);
        for relay in self.relays.all() {
            let stats = relay.stats();
            let [accepted, opened, faults] =
                [&stats.accepted, &stats.connections_opened, &stats.faults].map(|counter| counter.load(Ordering::Relaxed));
            // a single one may have been the last thing for a long time
            let is_up = relay.faults_in_a_row() < 2;
            metrics::relay(relay.name(), accepted, opened, faults, relay.open_connections(), is_up);
        }
        metrics::in_doubt_bound(self.relays.all_connections() * self.config.send.claim_window);
        let (queues, deliveries) = (self.observe_queues().await, self.observe_deliveries().await);
        if let Err(error) = &queues {
            tracing::debug!(%error, "the queues cannot be observed");
        }
        if let Err(error) = &deliveries {
            tracing::debug!(%error, "the deliveries cannot be observed");
        }
        queues.is_ok() && deliveries.is_ok()
    }

    async fn observe_queues(&self) -> Result<(), crate::queue::QueueError> {
        for depth in self.queue.depths().await? {
            let queue = depth.queue.as_str();
            let states = [
                ("waiting", depth.active),
                ("retrying", depth.scheduled),
                ("running", depth.in_flight),
                ("dead", depth.dead),
                ("done", depth.done),
            ];
            for (state, n) in states {
                metrics::queue_jobs(queue, state, n);
            }
            metrics::queue_age(queue, self.waiting_for(queue, depth.first.as_ref()));
            metrics::queue_beat(queue, depth.oldest_beat_s.unwrap_or_default());
        }
        for worker in self.health.states() {
            metrics::queue_worker(worker.queue.as_str(), worker.alive);
            metrics::queue_restarts(worker.queue.as_str(), worker.restarts);
        }
        Ok(())
    }

    /// Seconds since a queue's first job was queued, or, where its producer does not say when, for which it has been the first.
    fn waiting_for(&self, queue: &str, first: Option<&FirstJob>) -> u64 {
        let mark = first.map_or(0, |job| hash_of(&job.id));
        let seen = self.watch.see(&format!("first of {queue}"), (mark, 0), Instant::now());
        first.map_or(0, |job| job.waits_s.unwrap_or(seen.as_secs()))
    }

    async fn observe_deliveries(&self) -> Result<(), StoreError> {
        let mut states: HashMap<DeliveryState, usize> =
            DeliveryState::ALL.into_iter().filter(|s| s.is_moving()).map(|s| (s, 0)).collect();
        let (mut sum, mut aside, mut pending_s) = (Counts::default(), 0, 0);
        for id in self.store.moving().await? {
            let (state, chunks, mut counts) = match self.observe_delivery(&id).await {
                Ok(Some(seen)) => seen,
                Ok(None) => continue,
                Err(error) if error.may_pass() => return Err(error),
                // the reconciler says so
                Err(_) => continue,
            };
            *states.entry(state).or_default() += 1;
            if state == DeliveryState::StartPending {
                pending_s = pending_s.max(self.start_pending_for(&id).await?);
            }
            aside += chunks;
            for status in Status::ALL {
                *sum.of(status) += *counts.of(status);
            }
        }
        for (state, n) in states {
            metrics::deliveries(state.word(), n);
        }
        metrics::aside(aside);
        metrics::start_pending(pending_s);
        for status in Status::ALL {
            metrics::recipients(status.word(), *sum.of(status));
        }
        self.observe_waves().await?;
        self.observe_conservation().await
    }

    /// State, chunks that were set aside, counts.
    async fn observe_delivery(&self, id: &DeliveryId) -> Result<Option<(DeliveryState, usize, Counts)>, StoreError> {
        let Some(state) = self.store.state(id).await? else { return Ok(None) };
        Ok(Some((state, self.store.aside(id).await?.len(), self.store.counts(id).await?)))
    }

    /// One delivery at a time, in turn; the gauge shows the largest difference that stands.
    async fn observe_conservation(&self) -> Result<(), StoreError> {
        let ids = self.store.delivery_ids(0, 1000).await?;
        let now = Instant::now();
        let Some(id) = self.conservation.next(&ids, now) else { return Ok(()) };
        let (difference, ended) = match self.difference_of(&id).await {
            Err(error) if !error.may_pass() => {
                // the others have their turns, too
                tracing::error!(delivery.id = %id, %error, "its figures cannot be compared");
                (None, false)
            }
            compared => compared?,
        };
        if difference.is_some_and(|difference| difference > 0) {
            tracing::error!(delivery.id = %id, difference, "figures that must agree do not");
        }
        self.conservation.note(id, difference, ended, now);
        metrics::conservation(self.conservation.largest());
        Ok(())
    }

    /// The difference, and whether the delivery has ended.
    async fn difference_of(&self, id: &DeliveryId) -> Result<(Option<u64>, bool), StoreError> {
        let Some(delivery) = self.store.delivery(id).await? else { return Ok((Some(0), true)) };
        let compared = if delivery.document.has_started() { self.difference(&delivery).await } else { Ok(Some(0)) };
        let difference = match compared {
            Ok(Some(0) | None) => compared?,
            // what is removed in these moments cannot be compared: only where nothing was changed it is a difference
            _ if self.store.delivery(id).await?.is_none_or(|now| now.revision != delivery.revision) => None,
            _ => compared?,
        };
        Ok((difference, delivery.state.has_ended()))
    }

    /// The task: tells what became of jobs that were set aside, and removes those that ended long ago.
    pub async fn sweep_jobs(&self) -> bool {
        let (told, swept) = (self.tell_of_dead().await, self.queue.sweep(u64::from(unix_now())).await);
        if let Err(error) = &told {
            tracing::debug!(%error, "producers of dead jobs cannot be told");
        }
        if let Err(error) = &swept {
            tracing::debug!(%error, "ended jobs cannot be swept");
        }
        told.is_ok() && swept.is_ok()
    }
}

fn hash_of(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}
