//! Which chunks of a delivery want attention, for which a job was named, and which were set aside.

use std::collections::BTreeSet;

use redis::AsyncCommands;

use super::ledgers::ChunkRef;
use crate::{
    domain::delivery::DeliveryId,
    store::{Store, StoreError, keys},
};

impl Store {
    /// Chooses chunks that want attention, at most `most`, and at most `window` being offered at a time: (chunk, round) of each.
    pub async fn offer(
        &self,
        id: &DeliveryId,
        (window, most): (usize, usize),
        served: f64,
        now: u32,
    ) -> Result<Vec<(u32, u32)>, StoreError> {
        let mut script = self.scripts.offer.prepare_invoke();
        script.key(keys::delivery(id)).key(keys::open(id)).key(keys::offered(id)).key(keys::rounds(id)).key(keys::aside(id));
        script.arg(now).arg(window).arg(most).arg(served);
        let flat: Vec<u32> = script.invoke_async(&mut self.conn.clone()).await?;
        Ok(flat.as_chunks::<2>().0.iter().map(|[chunk, round]| (*chunk, *round)).collect())
    }

    /// Says how much a job of this delivery is: 1 is a full chunk.
    pub async fn note_length(&self, id: &DeliveryId, length: f64) -> Result<(), StoreError> {
        Ok(self.conn.clone().hset(keys::delivery(id), "length", length).await?)
    }

    /// Puts a delivery among those that want jobs: at the virtual time at which its next one would have ended, had it been
    /// served all the time since its last one, or since now if it had none.
    pub async fn wants_jobs(&self, id: &DeliveryId) -> Result<(), StoreError> {
        let mut conn = self.conn.clone();
        let (served, length): (Option<f64>, Option<f64>) =
            redis::cmd("HMGET").arg(keys::delivery(id)).arg(&["served", "length"]).query_async(&mut conn).await?;
        let now: Option<f64> = conn.get(keys::VIRTUAL_TIME).await?;
        let at = served.unwrap_or_default().max(now.unwrap_or_default()) + length.unwrap_or(1.0);
        let mut list = redis::cmd("ZADD");
        list.arg(keys::WANTING).arg("NX").arg(at).arg(id.as_str());
        Ok(list.query_async(&mut conn).await?)
    }

    /// The deliveries that want jobs and their virtual times, the earliest first.
    pub async fn wanting(&self, most: usize) -> Result<Vec<(DeliveryId, f64)>, StoreError> {
        let ids: Vec<(String, f64)> = self.conn.clone().zrange_withscores(keys::WANTING, 0, most as isize - 1).await?;
        ids.into_iter().map(|(id, at)| Ok((id.parse().map_err(crate::store::damaged)?, at))).collect()
    }

    /// Notes that a delivery got a job at this virtual time.
    pub async fn got_job(&self, id: &DeliveryId, at: f64) -> Result<(), StoreError> {
        let length: Option<f64> = self.conn.clone().hget(keys::delivery(id), "length").await?;
        let length = length.unwrap_or(1.0);
        let mut pipe = redis::pipe();
        // who comes now begins where this job begins: behind nobody who waits for a longer one
        pipe.zincr(keys::WANTING, id.as_str(), length).ignore().set(keys::VIRTUAL_TIME, at - length).ignore();
        self.run(&pipe).await
    }

    /// A delivery wants no jobs, or may have no more at a time.
    pub async fn wants_none(&self, id: &DeliveryId) -> Result<(), StoreError> {
        Ok(self.conn.clone().zrem(keys::WANTING, id.as_str()).await?)
    }

    /// Lets every chunk that waits for a time be looked at: the clock was set back.
    pub async fn look_at_all(&self, id: &DeliveryId, now: u32) -> Result<(), StoreError> {
        let later: Vec<u32> = self.conn.clone().zrangebyscore(keys::open(id), now, "+inf").await?;
        let mut pipe = redis::pipe();
        for chunk in later {
            pipe.cmd("ZADD").arg(keys::open(id)).arg("XX").arg("LT").arg(now).arg(chunk).ignore();
        }
        self.run(&pipe).await
    }

    /// How many chunks want attention, now or later.
    pub async fn waiting(&self, id: &DeliveryId) -> Result<usize, StoreError> {
        Ok(self.conn.clone().zcard(keys::open(id)).await?)
    }

    /// The chunks a job was named for: chunk, when (Unix seconds), round.
    pub async fn offered(&self, id: &DeliveryId) -> Result<Vec<(u32, u32, u32)>, StoreError> {
        let mut conn = self.conn.clone();
        let offered: Vec<(u32, f64)> = conn.zrange_withscores(keys::offered(id), 0, -1).await?;
        if offered.is_empty() {
            return Ok(Vec::new());
        }
        let chunks: Vec<u32> = offered.iter().map(|(chunk, _)| *chunk).collect();
        let rounds: Vec<Option<u32>> = redis::cmd("HMGET").arg(keys::rounds(id)).arg(chunks).query_async(&mut conn).await?;
        Ok(offered.into_iter().zip(rounds).map(|((chunk, at), round)| (chunk, at as u32, round.unwrap_or_default())).collect())
    }

    /// Puts a chunk whose job is gone back among those that want attention.
    pub async fn reopen(&self, at: &ChunkRef, round: u32, now: u32) -> Result<bool, StoreError> {
        let mut script = self.scripts.reopen.prepare_invoke();
        script
            .key(keys::open(&at.delivery))
            .key(keys::offered(&at.delivery))
            .key(keys::rounds(&at.delivery))
            .arg(at.chunk)
            .arg(round)
            .arg(now);
        Ok(script.invoke_async(&mut self.conn.clone()).await?)
    }

    /// Says that these chunks want attention now; those already waiting or set aside are left alone.
    pub async fn open(&self, id: &DeliveryId, chunks: impl Iterator<Item = u32>) -> Result<(), StoreError> {
        let aside = self.aside(id).await?;
        let mut pipe = redis::pipe();
        for chunk in chunks.filter(|chunk| !aside.contains(chunk)) {
            pipe.cmd("ZADD").arg(keys::open(id)).arg("NX").arg(0).arg(chunk).ignore();
        }
        self.run(&pipe).await
    }
}

impl Store {
    /// The chunks that were set aside: no job is named for them until a person asks for it.
    pub async fn aside(&self, id: &DeliveryId) -> Result<BTreeSet<u32>, StoreError> {
        Ok(self.conn.clone().smembers(keys::aside(id)).await?)
    }

    pub async fn is_aside(&self, at: &ChunkRef) -> Result<bool, StoreError> {
        Ok(self.conn.clone().sismember(keys::aside(&at.delivery), at.chunk).await?)
    }

    /// Sets a chunk aside. Its lease is to be released afterwards: if nothing is left to do it is aside no more.
    pub async fn set_aside(&self, at: &ChunkRef) -> Result<(), StoreError> {
        Ok(self.conn.clone().sadd(keys::aside(&at.delivery), at.chunk).await?)
    }

    /// Puts a chunk that was set aside back among those that want attention, as if nothing had happened.
    pub async fn readmit(&self, at: &ChunkRef) -> Result<(), StoreError> {
        let mut pipe = redis::pipe();
        pipe.atomic().srem(keys::aside(&at.delivery), at.chunk).ignore();
        pipe.hdel(keys::crashes(&at.delivery), at.chunk).ignore().zadd(keys::open(&at.delivery), at.chunk, 0).ignore();
        self.run(&pipe).await
    }

    /// Counts a worker that died with a chunk; how many there were since its last good end.
    pub async fn count_crash(&self, at: &ChunkRef) -> Result<u32, StoreError> {
        Ok(self.conn.clone().hincr(keys::crashes(&at.delivery), at.chunk, 1).await?)
    }

    pub async fn forget_crashes(&self, at: &ChunkRef) -> Result<(), StoreError> {
        Ok(self.conn.clone().hdel(keys::crashes(&at.delivery), at.chunk).await?)
    }
}
