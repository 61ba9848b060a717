//! Stored statistics of deliveries, and the lock that lets one daemon compute them each hour.

use redis::AsyncCommands;

use super::{hit_log::StatisticsBasis, hits::TrackingStore};
use crate::{
    domain::{delivery::DeliveryId, tracking::Statistics},
    store::{StoreError, damaged, keys},
};

impl TrackingStore {
    /// Keeps the statistics of a delivery. Returns false if their basis has changed meanwhile.
    pub async fn keep_statistics(
        &self,
        basis: &StatisticsBasis,
        statistics: &Statistics,
    ) -> Result<bool, StoreError> {
        let key = keys::statistics(&basis.delivery);
        let mut script = self.write_script(basis, &key, 0);
        script.arg(-1).arg("").arg(serde_json::to_vec(statistics).map_err(damaged)?);
        Ok(script.invoke_async::<i64>(&mut self.redis.connection()).await? >= 0)
    }

    /// The statistics of a delivery that were computed last.
    pub async fn statistics(&self, id: &DeliveryId) -> Result<Option<Statistics>, StoreError> {
        let text: Option<Vec<u8>> = self.redis.connection().get(keys::statistics(id)).await?;
        text.map(|text| serde_json::from_slice(&text).map_err(damaged)).transpose()
    }

    /// The statistics of some deliveries. Leaves out deliveries without statistics.
    pub async fn all_statistics(
        &self,
        ids: &[DeliveryId],
    ) -> Result<Vec<(DeliveryId, Statistics)>, StoreError> {
        let mut pipe = redis::pipe();
        for id in ids {
            pipe.get(keys::statistics(id));
        }
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let texts: Vec<Option<Vec<u8>>> = pipe.query_async(&mut self.redis.connection()).await?;
        let known = ids.iter().zip(texts).filter_map(|(id, text)| Some((id.clone(), text?)));
        known.map(|(id, text)| Ok((id, serde_json::from_slice(&text).map_err(damaged)?))).collect()
    }

    /// Removes the statistics and the tracking counters of a delivery.
    pub async fn remove_statistics(&self, id: &DeliveryId) -> Result<(), StoreError> {
        Ok(self.redis.connection().unlink(&[keys::tracking(id), keys::statistics(id)]).await?)
    }

    /// Locks an hour (hours of Unix time) for `lock_s` seconds. Returns false if the statistics of
    /// this hour are being computed, or are done.
    pub async fn lock_hour(&self, hour: i64, owner: u64, lock_s: u64) -> Result<bool, StoreError> {
        let mut set = redis::cmd("SET");
        set.arg(keys::statistics_hour(hour)).arg(owner).arg("NX").arg("EX").arg(lock_s);
        let taken: Option<String> = set.query_async(&mut self.redis.connection()).await?;
        Ok(taken.is_some())
    }

    /// Keeps the lock on an hour for `keep_s` seconds from now. Returns false if `owner`
    /// does not hold it.
    pub async fn extend_hour_lock(
        &self,
        hour: i64,
        owner: u64,
        keep_s: i64,
    ) -> Result<bool, StoreError> {
        let owned: Option<u64> = self.redis.connection().get(keys::statistics_hour(hour)).await?;
        Ok(owned == Some(owner)
            && self.redis.connection().expire(keys::statistics_hour(hour), keep_s).await?)
    }
}
