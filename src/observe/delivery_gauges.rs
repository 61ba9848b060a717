//! TODO head

use std::collections::HashMap;

use crate::{
    deliveries::Deliveries,
    domain::{
        delivery::{DeliveryId, DeliveryState},
        ledger::{Counts, Status},
    },
    metrics,
    store::{
        StoreError,
        chunks::{ChunkLists, LedgerStore},
        schedule::ScheduleStore,
    },
};

#[derive(Clone)]
pub struct DeliveryGauges {
    pub deliveries: Deliveries,
    pub ledgers: LedgerStore,
    pub chunks: ChunkLists,
    pub schedules: ScheduleStore,
}

impl DeliveryGauges {
    pub(super) async fn observe(&self) -> Result<(), StoreError> {
        let mut states: HashMap<DeliveryState, usize> =
            DeliveryState::ALL.into_iter().filter(|s| s.is_moving()).map(|s| (s, 0)).collect();
        let (mut sum, mut aside, mut pending_s) = (Counts::default(), 0, 0);
        for id in self.deliveries.store.moving().await? {
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
        metrics::poisoned_chunks(aside);
        metrics::start_pending(pending_s);
        for status in Status::ALL {
            metrics::recipients(status.word(), *sum.of(status));
        }
        self.observe_waves().await
    }

    /// State, chunks that were set aside, counts.
    async fn observe_delivery(
        &self,
        id: &DeliveryId,
    ) -> Result<Option<(DeliveryState, usize, Counts)>, StoreError> {
        let Some(state) = self.deliveries.store.state(id).await? else { return Ok(None) };
        Ok(Some((state, self.chunks.poisoned(id).await?.len(), self.ledgers.counts(id).await?)))
    }
}
