//! The list of templates and occurrences, by when the scheduler must look at them; a hint.

use jiff::Timestamp;
use redis::AsyncCommands;

use crate::{
    domain::delivery::DeliveryId,
    store::{DeliveryStore, StoreError, damaged, keys},
};

impl DeliveryStore {
    /// Templates and occurrences that the scheduler must look at now.
    pub async fn recurrences_due(&self, now: Timestamp) -> Result<Vec<DeliveryId>, StoreError> {
        let ids: Vec<String> =
            self.redis.connection().zrangebyscore(keys::RECURRING, "-inf", now.as_second()).await?;
        ids.iter().map(|id| id.parse().map_err(damaged)).collect()
    }

    /// Corrects the entries of some deliveries in the list, if they are missing or too late. Each
    /// delivery stores the right time itself.
    pub async fn relist_recurrences(&self, ids: &[DeliveryId]) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut pipe = redis::pipe();
        for id in ids {
            pipe.hget(keys::delivery(id), "wakes");
        }
        let wakes: Vec<Option<i64>> = pipe.query_async(&mut self.redis.connection()).await?;
        let mut list = redis::cmd("ZADD");
        list.arg(keys::RECURRING).arg("LT");
        let mut any = false;
        for (id, at) in ids.iter().zip(wakes).filter_map(|(id, at)| Some((id, at?))) {
            list.arg(at).arg(id.as_str());
            any = true;
        }
        if any {
            let () = list.query_async(&mut self.redis.connection()).await?;
        }
        Ok(())
    }
}
