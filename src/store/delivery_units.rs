//! The units of deliveries, and the list of the deliveries of one unit.

use super::{connection::StoreError, delivery_store::DeliveryStore, keys};
use crate::domain::delivery::DeliveryId;

/// How many deliveries are read in one round trip.
const AT_A_TIME: usize = 500;

impl DeliveryStore {
    /// The units of some deliveries. `None` where there is no such delivery, and `Some(None)` where
    /// a delivery belongs to no unit.
    pub async fn units(
        &self,
        ids: &[DeliveryId],
    ) -> Result<Vec<Option<Option<String>>>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        for id in ids {
            pipe.cmd("HMGET").arg(keys::delivery(id)).arg(&["state", "unit"]);
        }
        let found: Vec<(Option<String>, Option<String>)> =
            pipe.query_async(&mut self.redis.connection()).await?;
        Ok(found.into_iter().map(|(state, unit)| state.map(|_| unit)).collect())
    }

    /// At most `limit` ids of the deliveries of a unit, from `offset`, the newest first.
    ///
    /// It reads the units of all deliveries until the page is full.
    pub async fn delivery_ids_of(
        &self,
        unit: &str,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<DeliveryId>, StoreError> {
        let (mut page, mut passed) = (Vec::new(), 0);
        for from in (0..).step_by(AT_A_TIME) {
            let ids = self.delivery_ids(from, AT_A_TIME).await?;
            let is_last = ids.len() < AT_A_TIME;
            let units = self.units(&ids).await?;
            for (id, of) in ids.into_iter().zip(units) {
                if of.flatten().as_deref() != Some(unit) {
                    continue;
                }
                passed += 1;
                if passed > offset {
                    page.push(id);
                }
                if page.len() == limit {
                    return Ok(page);
                }
            }
            if is_last {
                break;
            }
        }
        Ok(page)
    }
}
