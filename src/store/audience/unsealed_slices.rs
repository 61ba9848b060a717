//! Seals the slices that a version without seals has written; this happens once.

use std::collections::HashMap;

use redis::AsyncCommands;

use super::{
    sealed_slice::SliceName,
    slices::{AudienceStore, SliceKind},
};
use crate::{
    domain::delivery::DeliveryId,
    store::{StoreError, keys},
};

impl AudienceStore {
    /// Seals the compressed slices of a delivery that have no seal; the tables of waves and chunks
    /// get none. `dues` are the due times of the chunks of preparation `generation`. Returns how
    /// many slices were sealed.
    pub(in crate::store) async fn seal_stored_slices(
        &self,
        id: &DeliveryId,
        generation: u32,
        dues: &[u32],
    ) -> Result<u64, StoreError> {
        let mut conn = self.redis.connection();
        let written: HashMap<String, u32> = conn.hgetall(keys::slice_counts(id)).await?;
        let mut sealed = 0;
        for (kind, slices) in written {
            if kind.starts_with("waves.") || kind.starts_with("places.") {
                continue;
            }
            let is_planned = kind == SliceKind::Chunks(generation).name();
            for number in 0..slices {
                let name = SliceName { delivery: id, kind: &kind, number };
                let stored: Option<Vec<u8>> = conn.get(name.key()).await?;
                let Some(packed) = stored.filter(|stored| SliceName::is_unsealed(stored)) else {
                    continue;
                };
                let due = dues.get(number as usize).filter(|_| is_planned);
                let bytes = name.seal(&self.seals, due.copied().unwrap_or_default(), &packed);
                let () = conn.set(name.key(), bytes).await?;
                sealed += 1;
            }
        }
        Ok(sealed)
    }
}
