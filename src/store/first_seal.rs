//! The first seal: documents and slices that a version without seals has written get their seals.
//!
//! The daemon that makes the key of the installation does this, at its first start. If the key is
//! in a credential file, the daemon with the file `sealing` in its state directory does it. Later,
//! an unsealed document or slice counts as altered.

use super::{StoreError, Stores, damaged};
use crate::domain::delivery::{Delivery, DeliveryId};

/// Deliveries whose ids are read in one round trip.
const AT_A_TIME: usize = 500;

/// What the first seal found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FirstSeal {
    pub deliveries: u64,
    pub slices: u64,
}

impl Stores {
    /// Seals all deliveries with their slices. After a crash it may be done again.
    ///
    /// # Errors
    /// If Redis does not answer, or a delivery is damaged.
    pub async fn seal_all(&self) -> Result<FirstSeal, StoreError> {
        let mut done = FirstSeal::default();
        for offset in (0..).step_by(AT_A_TIME) {
            let ids = self.deliveries.delivery_ids(offset, AT_A_TIME).await?;
            for id in &ids {
                let Some(delivery) = self.deliveries.delivery_unsealed(id).await? else { continue };
                let (generation, dues) = self.chunk_dues(&delivery).await?;
                done.slices += self.audiences.seal_stored_slices(id, generation, &dues).await?;
                self.deliveries.seal_stored(id).await?;
                done.deliveries += 1;
            }
            if ids.len() < AT_A_TIME {
                return Ok(done);
            }
        }
        Ok(done)
    }

    /// The generation of the plan, and the due time of each of its chunks.
    async fn chunk_dues(&self, delivery: &Delivery) -> Result<(u32, Vec<u32>), StoreError> {
        let Some(plan) = &delivery.document.plan else { return Ok((0, Vec::new())) };
        if delivery.document.cleaned.is_some() {
            return Ok((plan.generation, Vec::new()));
        }
        let id: &DeliveryId = &delivery.id;
        let waves = self.schedules.waves(id, plan).await?;
        let due_of = |place: crate::domain::schedule::ChunkPlace| {
            let wave = waves.get(usize::from(place.wave));
            wave.map(|wave| wave.due).ok_or_else(|| damaged("a chunk without a wave"))
        };
        let places = self.schedules.places(id, plan).await?;
        let dues: Result<Vec<u32>, StoreError> = places.into_iter().map(due_of).collect();
        Ok((plan.generation, dues?))
    }
}
