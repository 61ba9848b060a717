//! The fair queue in Redis: the deliveries that wait for a chunk job, by their virtual time.
//!
//! The virtual time of a delivery is the time at which its next job ends, if the delivery is served
//! without a break. The delivery with the earliest virtual time gets the next job.

use redis::AsyncCommands;

use super::chunk_lists::ChunkLists;
use crate::{
    domain::delivery::DeliveryId,
    store::{StoreError, damaged, keys},
};

impl ChunkLists {
    /// Notes the length of a job of this delivery; 1 is a full chunk.
    pub async fn note_job_length(&self, id: &DeliveryId, length: f64) -> Result<(), StoreError> {
        Ok(self.redis.connection().hset(keys::delivery(id), "length", length).await?)
    }

    /// Adds a delivery to the fair queue.
    ///
    /// Its virtual time is the end of its last job plus the length of the next one. A delivery that
    /// was away starts from the current virtual time instead.
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
        list.arg(keys::FAIR_QUEUE).arg("NX").arg(at).arg(id.as_str());
        Ok(list.query_async(&mut conn).await?)
    }

    /// At most `maximum` deliveries of the queue with their virtual times, the earliest first.
    pub async fn next_in_fair_queue(
        &self,
        maximum: usize,
    ) -> Result<Vec<(DeliveryId, f64)>, StoreError> {
        let ids: Vec<(String, f64)> = self
            .redis
            .connection()
            .zrange_withscores(keys::FAIR_QUEUE, 0, maximum as isize - 1)
            .await?;
        ids.into_iter().map(|(id, at)| Ok((id.parse().map_err(damaged)?, at))).collect()
    }

    /// Notes that a delivery got a job with this virtual time.
    pub async fn note_job(&self, id: &DeliveryId, at: f64) -> Result<(), StoreError> {
        let length: Option<f64> =
            self.redis.connection().hget(keys::delivery(id), "length").await?;
        let length = length.unwrap_or(1.0);
        let mut pipe = redis::pipe();
        // The current virtual time becomes the time at which this job begins, not its end. A
        // delivery that joins now starts from there.
        pipe.zincr(keys::FAIR_QUEUE, id.as_str(), length)
            .ignore()
            .set(keys::VIRTUAL_TIME, at - length)
            .ignore();
        self.redis.run(&pipe).await
    }

    /// Removes a delivery that gets no job now: it needs none, has as many as it may have, its
    /// circuit breaker is open, or its job cannot be queued.
    pub async fn leave_fair_queue(&self, id: &DeliveryId) -> Result<(), StoreError> {
        Ok(self.redis.connection().zrem(keys::FAIR_QUEUE, id.as_str()).await?)
    }
}
