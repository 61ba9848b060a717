//! The end: a delivery is finished when a full recount of its ledgers finds nothing left to do.

use serde_json::json;

use crate::{
    deliveries::{Context, Decision, Refusal},
    domain::{
        delivery::{Action, Delivery, DeliveryId, Plan},
        ledger::Counts,
    },
    metrics,
    queue::JobError,
    store::{StoreError, audience::SliceKind},
};

/// Ledgers read at a time.
const AT_A_TIME: u32 = 64;

/// What a recount found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recount {
    pub counts: Counts,
    /// Recipients that the sender will still claim, now or later.
    pub to_claim: u64,
    /// Those of them in waves that are not released yet.
    pub unreleased: u64,
    /// Ledgers that are not there.
    pub missing: u32,
}

impl Context {
    /// The job: finishes a delivery if nothing is left to do.
    pub async fn finish(&self, id: &DeliveryId) -> Result<(), JobError> {
        let delivery = match self.delivery(id).await {
            Ok(delivery) => delivery,
            Err(Refusal::NotFound) => return Ok(()),
            Err(other) => return Err(other.into()),
        };
        let (Ok(state), Some(plan)) = (delivery.state.after(Action::Settled), &delivery.document.plan) else { return Ok(()) };
        let recount = self.recount(&delivery, plan).await?;
        if recount.to_claim > 0 || recount.counts.attempting > 0 || recount.missing > 0 {
            if recount.to_claim > recount.unreleased
                && self.store.waiting(id).await? == 0
                && self.store.offered(id).await?.is_empty()
            {
                // in neither set although something is left, such as a doubt that is to be sent again: the sets are hints
                self.store.reopen_released(id, plan).await?;
            }
            return Ok(());
        }
        let mut document = delivery.document.clone();
        document.ended_at = Some(jiff::Timestamp::now());
        let details =
            json!({ "sent": recount.counts.sent, "failed": recount.counts.failed, "in_doubt": recount.counts.in_doubt });
        let decision = Decision { state, document, answer: (), act: Some(("finish", details)) };
        // not again with a newer revision: what changed meanwhile may have opened a recipient
        if self.commit(id, delivery.revision, "versand", &[], decision).await?.is_some() {
            let failed = recount.counts.sent == 0 && recount.counts.failed > 0;
            metrics::delivery_ended(if failed { "failed" } else { "finished" });
        }
        Ok(())
    }

    /// Counts every record of every ledger.
    pub async fn recount(&self, delivery: &Delivery, plan: &Plan) -> Result<Recount, StoreError> {
        let (waves, places) = (self.store.waves(&delivery.id, plan).await?, self.store.places(&delivery.id, plan).await?);
        let mut wave_of = places.iter().map(|place| waves.get(usize::from(place.wave)));
        let mut recount = Recount { counts: Counts::default(), to_claim: 0, unreleased: 0, missing: 0 };
        for from in (0..plan.chunks).step_by(AT_A_TIME as usize) {
            for ledger in self.store.ledgers(&delivery.id, from..plan.chunks.min(from + AT_A_TIME)).await? {
                let wave = wave_of.next().flatten().ok_or_else(|| StoreError::Damaged("a chunk without a wave".into()))?;
                let Some(ledger) = ledger else {
                    recount.missing += 1;
                    continue;
                };
                recount.counts.add(&ledger);
                let resend_after_s = self.resend_after_s(plan, wave);
                let to_claim = ledger.records().filter(|r| r.claimable_at(resend_after_s).is_some()).count() as u64;
                recount.to_claim += to_claim;
                recount.unreleased += if wave.state.is_released() { 0 } else { to_claim };
            }
        }
        Ok(recount)
    }

    /// The largest difference between figures that must agree: targeted, ledgers and exclusion log; live counters and recount.
    /// `None` while they change too fast to be compared.
    pub async fn difference(&self, delivery: &Delivery) -> Result<Option<u64>, StoreError> {
        let document = &delivery.document;
        if document.cleaned.is_some() {
            // frozen: there is nothing to compare with
            return Ok(Some(0));
        }
        let (Some(plan), Some(audience)) = (&document.plan, &document.audience) else { return Ok(None) };
        let before = self.store.counts(&delivery.id).await?;
        let recount = self.recount(delivery, plan).await?;
        if self.store.counts(&delivery.id).await? != before {
            return Ok(None);
        }
        let excluded = self.store.lines(&delivery.id, SliceKind::Exclusions(plan.generation), plan.exclusion_slices).await?;
        let lines = audience.recipients.abs_diff(excluded + recount.counts.total());
        Ok(Some(lines.max(before.largest_difference(&recount.counts))))
    }
}
