//! The recount: counts every record of a delivery's ledgers, and compares the figures.

use std::sync::Arc;

use crate::{
    clock::unix_now,
    config::Config,
    domain::{
        delivery::{Delivery, Plan},
        ledger::Counts,
    },
    store::{
        StoreError,
        audience::{AudienceStore, SliceKind},
        chunks::LedgerStore,
        schedule::ScheduleStore,
    },
};

/// Ledgers that are read in one round trip.
const AT_A_TIME: u32 = 64;

/// The result of a recount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recount {
    pub counts: Counts,
    /// Recipients that will still be claimed, now or later.
    pub to_claim: u64,
    /// The part of `to_claim` in waves that are not released yet.
    pub unreleased: u64,
    /// Ledgers that do not exist.
    pub missing: u32,
}

/// Counts and compares the records of deliveries.
#[derive(Clone)]
pub struct Recounts {
    pub ledgers: LedgerStore,
    pub schedules: ScheduleStore,
    pub audiences: AudienceStore,
    pub config: Arc<Config>,
}

impl Recounts {
    /// Counts every record of every ledger.
    ///
    /// # Errors
    /// If Redis does not answer, or if stored bytes are damaged.
    pub async fn recount(&self, delivery: &Delivery, plan: &Plan) -> Result<Recount, StoreError> {
        let waves = self.schedules.waves(&delivery.id, plan).await?;
        let places = self.schedules.places(&delivery.id, plan).await?;
        let mut wave_of = places.iter().map(|place| waves.get(usize::from(place.wave)));
        let mut recount =
            Recount { counts: Counts::default(), to_claim: 0, unreleased: 0, missing: 0 };
        for from in (0..plan.chunks).step_by(AT_A_TIME as usize) {
            let until = plan.chunks.min(from + AT_A_TIME);
            for ledger in self.ledgers.ledgers(&delivery.id, from..until).await? {
                let wave = wave_of
                    .next()
                    .flatten()
                    .ok_or_else(|| StoreError::Damaged("a chunk without a wave".into()))?;
                let Some(ledger) = ledger else {
                    recount.missing += 1;
                    continue;
                };
                recount.counts.add(&ledger);
                let resend_after_s =
                    plan.resend_after_s(wave, self.config.send.lease_ms, unix_now());
                let to_claim =
                    ledger.records().filter(|r| r.claimable_at(resend_after_s).is_some()).count()
                        as u64;
                recount.to_claim += to_claim;
                recount.unreleased += if wave.state.is_released() { 0 } else { to_claim };
            }
        }
        Ok(recount)
    }

    /// Returns the largest difference between figures that must agree.
    ///
    /// The targeted recipients must equal the ledgers plus the exclusion log. The live counters
    /// must equal the recount. Returns `None` if the figures change too fast to be compared, or if
    /// the delivery has no plan or no audience.
    ///
    /// # Errors
    /// If Redis does not answer, or if stored bytes are damaged.
    pub async fn difference(&self, delivery: &Delivery) -> Result<Option<u64>, StoreError> {
        let document = &delivery.document;
        if document.cleaned.is_some() {
            // the retention has removed the logs: there is nothing to compare with
            return Ok(Some(0));
        }
        let (Some(plan), Some(audience)) = (&document.plan, &document.audience) else {
            return Ok(None);
        };
        let before = self.ledgers.counts(&delivery.id).await?;
        let recount = self.recount(delivery, plan).await?;
        if self.ledgers.counts(&delivery.id).await? != before {
            return Ok(None);
        }
        let excluded = self
            .audiences
            .lines(&delivery.id, SliceKind::Exclusions(plan.generation), plan.exclusion_slices)
            .await?;
        let targeted = audience.recipients.abs_diff(excluded + recount.counts.total());
        Ok(Some(targeted.max(before.largest_difference(&recount.counts))))
    }
}
