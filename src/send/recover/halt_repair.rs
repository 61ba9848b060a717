//! The end of pausing and stopping: a delivery is at rest once no recipient is being attempted.

use jiff::Timestamp;

use super::chunk_repair::ChunkRepair;
use crate::{
    clock::unix_now,
    deliveries::{Decision, Deliveries, Refusal},
    domain::{
        delivery::{Action, Delivery, DeliveryState},
        ledger::ChunkRef,
    },
    metrics,
    send::release::Starts,
    store::{StoreError, chunks::LedgerStore},
};

/// Brings pausing and stopping deliveries to rest.
#[derive(Clone)]
pub struct HaltRepair {
    pub deliveries: Deliveries,
    pub starts: Starts,
    pub ledgers: LedgerStore,
    pub chunk_repair: ChunkRepair,
}

impl HaltRepair {
    /// Ends pausing or stopping if no recipient is being attempted. Cancels the rest for a stop.
    pub(super) async fn bring_to_rest(&self, delivery: &Delivery) -> Result<(), Refusal> {
        self.chunk_repair.repair_with_jobs(delivery).await?;
        let is_stop = delivery.state == DeliveryState::Stopping;
        if is_stop {
            self.cancel_pending(delivery).await?;
        }
        let counts = self.ledgers.counts(&delivery.id).await?;
        // a claim that was given back after the cancellation is pending again, until the next pass
        if counts.attempting > 0 || is_stop && counts.open() > 0 {
            return self.chunk_repair.repair_without_jobs(delivery, &counts).await;
        }
        let state = delivery.state.after(Action::AtRest)?;
        let mut document = delivery.document.clone();
        if is_stop {
            document.ended_at = Some(Timestamp::now());
            // the delivery may have been stopped before it was started
            document.confirmation.iter_mut().for_each(|confirmation| confirmation.started = true);
        }
        let decision = Decision { state, document, answer: (), act: None };
        // no second try with a newer revision: since the counts were read, the delivery may have
        // been resumed and paused again
        let committed =
            self.deliveries.commit(&delivery.id, Some(delivery), "versand", &[], decision).await?;
        if committed.is_none() {
            return Ok(());
        }
        tracing::info!(
            delivery.id = %delivery.id,
            state = state.word(),
            sent = counts.sent,
            failed = counts.failed,
            in_doubt = counts.in_doubt,
            deferred = counts.deferred,
            pending = counts.pending,
            cancelled = counts.cancelled,
            "delivery: at rest"
        );
        if is_stop {
            metrics::delivery_ended("stopped");
        }
        Ok(())
    }

    async fn cancel_pending(&self, delivery: &Delivery) -> Result<(), StoreError> {
        let Some(plan) = &delivery.document.plan else { return Ok(()) };
        // the delivery may have been stopped before it was started
        self.starts.create_ledgers(&delivery.id, plan).await?;
        for chunk in 0..plan.chunks {
            let at = ChunkRef { delivery: delivery.id.clone(), chunk };
            self.ledgers.cancel_pending(&at, unix_now()).await?;
        }
        Ok(())
    }
}
