//! The end of a delivery: the delivery is finished when a recount finds nothing left to do.

use jiff::Timestamp;
use serde_json::json;

use super::recounts::Recounts;
use crate::{
    deliveries::{Decision, Deliveries, Refusal},
    domain::delivery::{Action, DeliveryId},
    metrics,
    queue::JobError,
    store::{chunks::ChunkLists, schedule::ScheduleStore},
};

/// Finishes deliveries.
#[derive(Clone)]
pub struct Finishes {
    pub deliveries: Deliveries,
    pub recounts: Recounts,
    pub schedules: ScheduleStore,
    pub chunks: ChunkLists,
}

impl Finishes {
    /// The job: finishes a delivery if nothing is left to do.
    ///
    /// # Errors
    /// [`JobError::Retry`] if Redis does not answer; [`JobError::Abort`] if a part is damaged.
    pub async fn finish(&self, id: &DeliveryId) -> Result<(), JobError> {
        let delivery = match self.deliveries.delivery(id).await {
            Ok(delivery) => delivery,
            Err(Refusal::NotFound) => return Ok(()),
            Err(other) => return Err(other.into()),
        };
        if self.deliveries.store_is_held().await? {
            return Ok(());
        }
        let (Ok(state), Some(plan)) =
            (delivery.state.after(Action::Finish), &delivery.document.plan)
        else {
            return Ok(());
        };
        let recount = self.recounts.recount(&delivery, plan).await?;
        let counts = &recount.counts;
        if recount.to_claim > 0 || counts.attempting > 0 || recount.missing > 0 {
            if recount.to_claim > recount.unreleased
                && self.chunks.ready_count(id).await? == 0
                && self.chunks.with_jobs(id).await?.is_empty()
            {
                // recipients are left, but their chunks are in no list: lists are hints
                self.schedules.mark_all_released_ready(id, plan).await?;
            }
            return Ok(());
        }
        let mut document = delivery.document.clone();
        document.ended_at = Some(Timestamp::now());
        let details = json!({
            "sent": counts.sent,
            "failed": counts.failed,
            "in_doubt": counts.in_doubt,
        });
        let decision = Decision { state, document, answer: (), act: Some(("finish", details)) };
        // no second try with a newer revision: the change may have opened a recipient again
        if self.deliveries.commit(id, Some(&delivery), "versand", &[], decision).await?.is_some() {
            let has_failed = counts.sent == 0 && counts.failed > 0;
            metrics::delivery_ended(if has_failed { "failed" } else { "finished" });
        }
        Ok(())
    }
}
