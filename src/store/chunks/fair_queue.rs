//! TODO head

use redis::AsyncCommands;

use super::chunk_lists::ChunkLists;
use crate::{
    domain::delivery::DeliveryId,
    store::{StoreError, keys},
};

impl ChunkLists {
    /// Says how much a job of this delivery is: 1 is a full chunk.
    pub async fn note_job_length(&self, id: &DeliveryId, length: f64) -> Result<(), StoreError> {
        Ok(self.redis.connection().hset(keys::delivery(id), "length", length).await?)
    }

    /// Puts a delivery among those that want jobs: at the virtual time at which its next one would have ended, had it been
    /// served all the time since its last one, or since now if it had none.
    pub async fn join_fair_queue(&self, id: &DeliveryId) -> Result<(), StoreError> {
        let mut conn = self.redis.connection();
        let (served, length): (Option<f64>, Option<f64>) = redis::cmd("HMGET")
            .arg(keys::delivery(id))
            .arg(&["served", "length"])
            .query_async(&mut conn)
            .await?;
        let now: Option<f64> = conn.get(keys::VIRTUAL_TIME).await?;
        let at = served.unwrap_or_default().max(now.unwrap_or_default()) + length.unwrap_or(1.0);
        let mut list = redis::cmd("ZADD");
        list.arg(keys::WANTING).arg("NX").arg(at).arg(id.as_str());
        Ok(list.query_async(&mut conn).await?)
    }

    /// The deliveries that want jobs and their virtual times, the earliest first.
    pub async fn next_in_fair_queue(
        &self,
        most: usize,
    ) -> Result<Vec<(DeliveryId, f64)>, StoreError> {
        let ids: Vec<(String, f64)> =
            self.redis.connection().zrange_withscores(keys::WANTING, 0, most as isize - 1).await?;
        ids.into_iter()
            .map(|(id, at)| Ok((id.parse().map_err(crate::store::damaged)?, at)))
            .collect()
    }

    /// Notes that a delivery got a job at this virtual time.
    pub async fn note_job(&self, id: &DeliveryId, at: f64) -> Result<(), StoreError> {
        let length: Option<f64> =
            self.redis.connection().hget(keys::delivery(id), "length").await?;
        let length = length.unwrap_or(1.0);
        let mut pipe = redis::pipe();
        // who comes now begins where this job begins: behind nobody who waits for a longer one
        pipe.zincr(keys::WANTING, id.as_str(), length)
            .ignore()
            .set(keys::VIRTUAL_TIME, at - length)
            .ignore();
        self.redis.run(&pipe).await
    }

    /// A delivery wants no jobs, or may have no more at a time.
    pub async fn leave_fair_queue(&self, id: &DeliveryId) -> Result<(), StoreError> {
        Ok(self.redis.connection().zrem(keys::WANTING, id.as_str()).await?)
    }
}
