//! The gauges of deliveries that move: states, recipients and poisoned chunks.

use std::collections::HashMap;

use super::wave_gauges::WaveGauges;
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
    },
};

/// Sets the gauges of deliveries that move.
#[derive(Clone)]
pub struct DeliveryGauges {
    pub deliveries: Deliveries,
    pub ledgers: LedgerStore,
    pub chunks: ChunkLists,
    pub waves: WaveGauges,
}

impl DeliveryGauges {
    /// Sets the gauges. A delivery that cannot be read is left out.
    pub(super) async fn observe(&self) -> Result<(), StoreError> {
        let mut states: HashMap<DeliveryState, usize> =
            DeliveryState::ALL.into_iter().filter(|s| s.is_moving()).map(|s| (s, 0)).collect();
        let (mut sum, mut poisoned, mut pending_s) = (Counts::default(), 0, 0);
        for id in self.deliveries.store.moving().await? {
            let (state, chunks, mut counts) = match self.read(&id).await {
                Ok(Some(read)) => read,
                Ok(None) => continue,
                Err(error) if error.may_pass() => return Err(error),
                // the reconciler logs the error
                Err(_) => continue,
            };
            *states.entry(state).or_default() += 1;
            if state == DeliveryState::StartPending {
                pending_s = pending_s.max(self.waves.start_pending_for(&id).await?);
            }
            poisoned += chunks;
            for status in Status::ALL {
                *sum.of(status) += *counts.of(status);
            }
        }
        for (state, n) in states {
            metrics::deliveries(state.word(), n);
        }
        metrics::poisoned_chunks(poisoned);
        metrics::start_pending(pending_s);
        for status in Status::ALL {
            metrics::recipients(status.word(), *sum.of(status));
        }
        Ok(())
    }

    /// Reads the state, the number of poisoned chunks and the counts of a delivery.
    async fn read(
        &self,
        id: &DeliveryId,
    ) -> Result<Option<(DeliveryState, usize, Counts)>, StoreError> {
        let Some(state) = self.deliveries.store.state(id).await? else { return Ok(None) };
        Ok(Some((state, self.chunks.poisoned(id).await?.len(), self.ledgers.counts(id).await?)))
    }
}
