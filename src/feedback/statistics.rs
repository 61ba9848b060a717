//! Statistics: the share of opened and clicked messages, each hour and on demand; and what tells humans from machines, anew.

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
    store::{
        StoreError,
        audience::AudienceStore,
        chunks::LedgerStore,
        tracking::{HITS_PER_BLOCK, StatisticsBasis, TrackingLogExtent, TrackingStore},
    },
};

/// Blocks of the tracking log, and ledgers, that are read at a time.
const BLOCKS: u64 = 16;
const LEDGERS: u32 = 64;
/// So long an hour is kept from others by who computes it, and once it is done.
const LOCK_S: u64 = 120;
const DONE_S: i64 = 7200;
/// Deliveries looked at in one go.
const PAGE: usize = 1000;

/// How often they are computed if others change labels all the while.
const ATTEMPTS: u32 = 10;

const CHANGING: Refusal =
    Refusal::Conflict("its labels or its state change all the time: ask again");
const NOT_RELEASED: Refusal = Refusal::Conflict("it was not released: there is nothing to compute");

pub const DAMAGED: &str = "a line of the tracking log";

/// Does what takes long where it holds nobody up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| StoreError::Damaged(e.to_string()))
}

#[derive(Clone)]
pub struct StatisticsUpdates {
    pub deliveries: Deliveries,
    pub tracking: TrackingStore,
    pub ledgers: LedgerStore,
    pub audiences: AudienceStore,
    pub rules: Arc<MachineRules>,
    pub one_at_a_time: Arc<tokio::sync::Mutex<()>>,
    pub daemon: Daemon,
}

impl StatisticsUpdates {
    /// *Compute statistics*: reads ledgers and tracking log, marks bursts, and keeps the figures. With `anew` all hits are labelled
    /// by the rules in force.
    pub async fn compute(&self, id: &DeliveryId, anew: bool) -> Result<Statistics, Refusal> {
        // one log of many lines at a time
        let _alone = self.one_at_a_time.lock().await;
        for _ in 0..ATTEMPTS {
            // what is left of one that was cleaned are the figures that it had
            let delivery = self.deliveries.delivery_with_tracking(id).await?;
            if let Some(statistics) = self.try_compute(&delivery, anew).await? {
                return Ok(statistics);
            }
        }
        Err(CHANGING)
    }

    /// `None`, and nothing is kept, if what they are made of changed meanwhile.
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
            .ok_or(NOT_RELEASED)?;
        let numbers = RecipientNumber::of(plan.chunks, 0, plan.chunk_size).0;
        let numbers = usize::try_from(numbers)
            .map_err(|_| StoreError::Damaged("too many recipients".into()))?;
        let reckoning =
            StatisticsCount::new(numbers, self.audiences.links(delivery, plan).await?.len());
        let TrackingLogExtent { hits, beyond, label_changes } =
            self.tracking.log_extent(&delivery.id).await?;
        let mut basis = StatisticsBasis {
            delivery: delivery.id.clone(),
            revision: delivery.revision,
            label_changes,
        };
        let (reckoning, changed) = self.read_log(&delivery.id, hits, reckoning, anew).await?;
        if !self.tracking.relabel(&mut basis, &changed).await? {
            return Ok(None);
        }
        let statuses = self.statuses_of(&basis, plan, &reckoning).await?;
        let settings = plan.settings.clone();
        let figures =
            blocking(move || reckoning.finish(&statuses, &settings, Timestamp::now())).await?;
        let statistics = Statistics { labels: basis.label_changes, hits_beyond: beyond, ..figures };
        Ok(self.tracking.keep_statistics(&basis, &statistics).await?.then_some(statistics))
    }

    /// Reads the first lines of the tracking log: what they say of each recipient, and which of them get other labels.
    async fn read_log(
        &self,
        id: &DeliveryId,
        lines: u64,
        reckoning: StatisticsCount,
        anew: bool,
    ) -> Result<(StatisticsCount, Vec<Relabelled>), StoreError> {
        // read after the lines were counted: so none of them has an agent that is not among these
        let anew =
            if anew { Some((self.rules.clone(), self.tracking.agents(id).await?)) } else { None };
        let mut labelling = Labelling::new(reckoning, anew);
        let blocks = lines.div_ceil(HITS_PER_BLOCK);
        for from in (0..blocks).step_by(BLOCKS as usize) {
            let some = self.tracking.hit_blocks(id, from..blocks.min(from + BLOCKS)).await?;
            let read = blocking(move || {
                let is_whole =
                    some.iter().all(|(first, block)| labelling.read(*first..lines, block));
                is_whole.then_some(labelling)
            });
            labelling = read.await?.ok_or_else(|| StoreError::Damaged(DAMAGED.into()))?;
        }
        blocking(move || labelling.finish()).await
    }

    /// Every recipient's status; on the way the bits of records are mended that the log does not bear out.
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

    /// The task: once an hour, by one daemon, the figures of all deliveries that have changed.
    pub async fn hourly(&self) -> bool {
        let done = self.hourly_statistics().await;
        if let Err(error) = &done {
            tracing::warn!(%error, "the hourly statistics wait for Redis");
        }
        done.is_ok()
    }

    /// Whoever comes first has the hour; who dies on the way is followed by another one.
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
                        tracing::error!(delivery.id = %id, %error, "its statistics cannot be computed");
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
