//! Statistics: counts of opens, clicks and opt-outs, each hour and on demand.

use std::sync::Arc;

use jiff::Timestamp;

use crate::{
    daemon::Daemon,
    deliveries::{Deliveries, Refusal},
    domain::{
        delivery::{Delivery, DeliveryId, Plan},
        ledger::{RecipientNumber, Status},
        tracking::{Labelling, MachineRules, Relabelled, Statistics, StatisticsCount},
    },
    live::Live,
    store::{
        StoreError,
        audience::AudienceStore,
        chunks::LedgerStore,
        tracking::{HITS_PER_BLOCK, StatisticsBasis, TrackingLogExtent, TrackingStore},
    },
};

/// How many blocks of the tracking log are read in one round trip.
const BLOCKS: u64 = 16;
/// How many ledgers are read in one round trip.
const LEDGERS: u32 = 64;
/// How long the lock on an hour lasts while a daemon computes the hour, in seconds. The daemon
/// extends the lock on the way.
const LOCK_S: u64 = 120;
/// How long the lock on an hour lasts after the hour is done, in seconds.
const DONE_S: i64 = 7200;
/// How many ids of deliveries are read in one round trip.
const PAGE: usize = 1000;
/// How often the statistics are tried if somebody else changes labels meanwhile.
const ATTEMPTS: u32 = 10;

const CHANGING: Refusal =
    Refusal::Conflict("the labels or the state of the delivery keep changing: ask again");
const NOT_STARTED: Refusal =
    Refusal::Conflict("the delivery has not started: there is nothing to compute");

/// Runs long work on a thread where it holds up no other task.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| StoreError::Damaged(e.to_string()))
}

/// Computes statistics and keeps them.
#[derive(Clone)]
pub struct StatisticsUpdates {
    pub deliveries: Deliveries,
    pub tracking: TrackingStore,
    pub ledgers: LedgerStore,
    pub audiences: AudienceStore,
    pub rules: Live<MachineRules>,
    /// One computation at a time in this process: a tracking log may have many lines.
    pub one_at_a_time: Arc<tokio::sync::Mutex<()>>,
    pub daemon: Daemon,
}

impl StatisticsUpdates {
    /// Reads ledgers and tracking log, marks bursts, and keeps the statistics (*compute statistics*
    /// in the API). With `anew` all hits are labelled again by the rules in force.
    ///
    /// # Errors
    /// - The delivery or a log is gone, or the delivery has not started.
    /// - The labels or the state of the delivery keep changing.
    /// - A part is damaged, or Redis does not answer.
    pub async fn compute(&self, id: &DeliveryId, anew: bool) -> Result<Statistics, Refusal> {
        let _alone = self.one_at_a_time.lock().await;
        for _ in 0..ATTEMPTS {
            // a delivery without its logs keeps the statistics that it had
            let delivery = self.deliveries.delivery_with_tracking(id).await?;
            if let Some(statistics) = self.try_compute(&delivery, anew).await? {
                return Ok(statistics);
            }
        }
        Err(CHANGING)
    }

    /// Computes once. If labels or state changed meanwhile, no statistics are kept, and the result
    /// is `None`.
    async fn try_compute(
        &self,
        delivery: &Delivery,
        anew: bool,
    ) -> Result<Option<Statistics>, Refusal> {
        let plan = delivery
            .document
            .plan
            .as_ref()
            .filter(|_| delivery.document.has_started())
            .ok_or(NOT_STARTED)?;
        let numbers = RecipientNumber::of(plan.chunks, 0, plan.chunk_size).0;
        let numbers = usize::try_from(numbers)
            .map_err(|_| StoreError::Damaged("too many recipients".into()))?;
        let count =
            StatisticsCount::new(numbers, self.audiences.links(delivery, plan).await?.len());
        let TrackingLogExtent { hits, beyond, label_changes } =
            self.tracking.log_extent(&delivery.id).await?;
        let mut basis = StatisticsBasis {
            delivery: delivery.id.clone(),
            revision: delivery.revision,
            label_changes,
        };
        let (count, changed) = self.read_log(&delivery.id, hits, count, anew).await?;
        if !self.tracking.relabel(&mut basis, &changed).await? {
            return Ok(None);
        }
        let statuses = self.statuses_of(&basis, plan, &count).await?;
        let settings = plan.settings.clone();
        let figures =
            blocking(move || count.finish(&statuses, &settings, Timestamp::now())).await?;
        let statistics = Statistics { labels: basis.label_changes, hits_beyond: beyond, ..figures };
        Ok(self.tracking.keep_statistics(&basis, &statistics).await?.then_some(statistics))
    }

    /// Reads the first `lines` lines of the tracking log into `count`. Also returns the lines whose
    /// labels change.
    async fn read_log(
        &self,
        id: &DeliveryId,
        lines: u64,
        count: StatisticsCount,
        anew: bool,
    ) -> Result<(StatisticsCount, Vec<Relabelled>), StoreError> {
        // the agents are read after the length of the log, so every line finds its agent
        let anew =
            if anew { Some((self.rules.now(), self.tracking.agents(id).await?)) } else { None };
        let mut labelling = Labelling::new(count, anew);
        let blocks = lines.div_ceil(HITS_PER_BLOCK);
        for from in (0..blocks).step_by(BLOCKS as usize) {
            let some = self.tracking.hit_blocks(id, from..blocks.min(from + BLOCKS)).await?;
            let read = blocking(move || {
                let is_whole =
                    some.iter().all(|(first, block)| labelling.read(*first..lines, block));
                is_whole.then_some(labelling)
            });
            labelling = read
                .await?
                .ok_or_else(|| StoreError::Damaged("a line of the tracking log".into()))?;
        }
        blocking(move || labelling.finish()).await
    }

    /// The status of every recipient. Tracking bits of records that differ from the log are
    /// corrected on the way.
    async fn statuses_of(
        &self,
        basis: &StatisticsBasis,
        plan: &Plan,
        log: &StatisticsCount,
    ) -> Result<Vec<Option<Status>>, StoreError> {
        let mut statuses = Vec::new();
        for from in (0..plan.chunks).step_by(LEDGERS as usize) {
            let chunks = from..plan.chunks.min(from + LEDGERS);
            for (chunk, ledger) in
                chunks.clone().zip(self.ledgers.ledgers(&basis.delivery, chunks).await?)
            {
                let first = chunk * plan.chunk_size;
                statuses.resize(first as usize, None);
                let mut wrong = Vec::new();
                for (position, record) in
                    (0u16..).zip(ledger.iter().flat_map(|ledger| ledger.records()))
                {
                    statuses.push(Some(record.status));
                    let (bits, hits) = log.of(first + u32::from(position));
                    if record.tracked != bits {
                        wrong.push((position, record.tracked, hits, bits));
                    }
                }
                if !wrong.is_empty() {
                    self.tracking.correct_tracked(basis, chunk, &wrong).await?;
                }
            }
        }
        Ok(statuses)
    }

    /// The task: once an hour one daemon computes the statistics of all changed deliveries. Returns
    /// false if Redis did not answer.
    pub async fn hourly(&self) -> bool {
        let done = self.hourly_statistics().await;
        if let Err(error) = &done {
            error.log_failed_pass("the hourly statistics wait until Redis answers");
        }
        done.is_ok()
    }

    /// The first daemon gets the hour. If it dies on the way, its lock ends and another daemon
    /// computes the hour.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn hourly_statistics(&self) -> Result<(), StoreError> {
        let hour = Timestamp::now().as_second().div_euclid(3600);
        if !self.tracking.lock_hour(hour, self.daemon.owner, LOCK_S).await? {
            return Ok(());
        }
        for from in (0..).step_by(PAGE) {
            let ids = self.deliveries.store.delivery_ids(from, PAGE).await?;
            for id in &ids {
                if self.daemon.shutdown.is_cancelled()
                    || !self
                        .tracking
                        .extend_hour_lock(hour, self.daemon.owner, LOCK_S as i64)
                        .await?
                {
                    return Ok(());
                }
                match self.compute_if_changed(id).await {
                    Err(Refusal::Unavailable(error)) if error.may_pass() => return Err(error),
                    Err(Refusal::Unavailable(error)) => {
                        tracing::error!(
                            delivery.id = %id,
                            %error,
                            "the statistics of this delivery cannot be computed"
                        );
                    }
                    _ => {}
                }
            }
            if ids.len() < PAGE {
                break;
            }
        }
        self.tracking.extend_hour_lock(hour, self.daemon.owner, DONE_S).await?;
        Ok(())
    }

    async fn compute_if_changed(&self, id: &DeliveryId) -> Result<(), Refusal> {
        if self.ledgers.counts_begun(id).await? {
            let (kept, counts) =
                (self.tracking.statistics(id).await?, self.ledgers.counts(id).await?);
            let now = (self.tracking.log_extent(id).await?, counts.sent, counts.failed);
            let extent = |kept: &Statistics| TrackingLogExtent {
                hits: kept.hits,
                beyond: kept.hits_beyond,
                label_changes: kept.labels,
            };
            if kept.is_none_or(|kept| (extent(&kept), kept.delivered, kept.failed) != now) {
                self.compute(id, false).await?;
            }
        }
        Ok(())
    }
}
