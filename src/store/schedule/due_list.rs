//! Lists of deliveries by their waves: those that wait for a due wave, and those with held waves.

use redis::AsyncCommands;

use super::waves::ScheduleStore;
use crate::{
    domain::delivery::DeliveryId,
    store::{StoreError, damaged, keys},
};

impl ScheduleStore {
    /// Deliveries whose next wave is due at `now` (Unix seconds).
    pub async fn due_deliveries(&self, now: u32) -> Result<Vec<DeliveryId>, StoreError> {
        let ids: Vec<String> =
            self.redis.connection().zrangebyscore(keys::DUE, "-inf", now).await?;
        ids.iter().map(|id| id.parse().map_err(damaged)).collect()
    }

    /// The number of deliveries that wait for a wave, and when the first of them is due (Unix
    /// seconds).
    pub async fn waiting_deliveries(&self) -> Result<(u64, Option<u32>), StoreError> {
        let mut conn = self.redis.connection();
        let first: Vec<(String, f64)> = conn.zrange_withscores(keys::DUE, 0, 0).await?;
        Ok((conn.zcard(keys::DUE).await?, first.first().map(|(_, due)| *due as u32)))
    }

    /// Notes when the next wave of a delivery is due; `None` removes the delivery from the list.
    pub async fn list_due(&self, id: &DeliveryId, next_due: Option<u32>) -> Result<(), StoreError> {
        let mut conn = self.redis.connection();
        match next_due {
            Some(due) => Ok(conn.zadd(keys::DUE, id.as_str(), due).await?),
            None => Ok(conn.zrem(keys::DUE, id.as_str()).await?),
        }
    }

    /// Adds a delivery that may be missing on the list, due at once. The next pass corrects the
    /// time.
    pub async fn relist_due(&self, id: &DeliveryId) -> Result<(), StoreError> {
        let mut list = redis::cmd("ZADD");
        list.arg(keys::DUE).arg("NX").arg(0).arg(id.as_str());
        Ok(list.query_async(&mut self.redis.connection()).await?)
    }

    /// Deliveries with held waves.
    pub async fn deliveries_with_held_waves(&self) -> Result<Vec<DeliveryId>, StoreError> {
        let ids: Vec<String> = self.redis.connection().smembers(keys::HELD).await?;
        ids.iter().map(|id| id.parse().map_err(damaged)).collect()
    }

    /// Adds a delivery to the list of those with held waves, or removes it.
    pub async fn list_held(&self, id: &DeliveryId, held: bool) -> Result<(), StoreError> {
        let mut conn = self.redis.connection();
        match held {
            true => Ok(conn.sadd(keys::HELD, id.as_str()).await?),
            false => Ok(conn.srem(keys::HELD, id.as_str()).await?),
        }
    }
}
