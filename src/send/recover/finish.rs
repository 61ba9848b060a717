//! The end: a delivery is finished when a full recount of its ledgers finds nothing left to do.

use serde_json::json;

use super::recount::Recounts;
use crate::{
    deliveries::{Decision, Deliveries, Refusal},
    domain::{
        delivery::{Action, DeliveryId},
        ledger::Counts,
    },
    metrics,
    queue::JobError,
    store::chunks::ChunkLists,
};

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

#[derive(Clone)]
pub struct Finishes {
    pub deliveries: Deliveries,
    pub recounts: Recounts,
    pub chunks: ChunkLists,
}

impl Finishes {
    /// The job: finishes a delivery if nothing is left to do.
    pub async fn finish(&self, id: &DeliveryId) -> Result<(), JobError> {
        let delivery = match self.deliveries.delivery(id).await {
            Ok(delivery) => delivery,
            Err(Refusal::NotFound) => return Ok(()),
            Err(other) => return Err(other.into()),
        };
        let (Ok(state), Some(plan)) =
            (delivery.state.after(Action::Finish), &delivery.document.plan)
        else {
            return Ok(());
        };
        let recount = self.recounts.recount(&delivery, plan).await?;
        if recount.to_claim > 0 || recount.counts.attempting > 0 || recount.missing > 0 {
            if recount.to_claim > recount.unreleased
                && self.chunks.ready_count(id).await? == 0
                && self.chunks.with_jobs(id).await?.is_empty()
            {
                // in neither set although something is left, such as a doubt that is to be sent again: the sets are hints
                self.recounts.schedules.mark_all_released_ready(id, plan).await?;
            }
            return Ok(());
        }
        let mut document = delivery.document.clone();
        document.ended_at = Some(jiff::Timestamp::now());
        let details = json!({ "sent": recount.counts.sent, "failed": recount.counts.failed, "in_doubt": recount.counts.in_doubt });
        let decision = Decision { state, document, answer: (), act: Some(("finish", details)) };
        // not again with a newer revision: what changed meanwhile may have opened a recipient
        if self.deliveries.commit(id, delivery.revision, "versand", &[], decision).await?.is_some()
        {
            let failed = recount.counts.sent == 0 && recount.counts.failed > 0;
            metrics::delivery_ended(if failed { "failed" } else { "finished" });
        }
        Ok(())
    }
}
