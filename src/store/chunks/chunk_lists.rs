//! Which chunks of a delivery want attention, for which a job was named, and which were set aside.

use std::sync::Arc;

use redis::{AsyncCommands, Script};

use crate::{
    domain::{delivery::DeliveryId, ledger::ChunkRef},
    store::{Redis, StoreError, keys, with_prelude},
};

/// Which chunks want attention, and which deliveries want jobs. Cheap to clone.
#[derive(Clone)]
pub struct ChunkLists {
    pub(in crate::store) redis: Redis,
    pub(in crate::store) scripts: Arc<ChunkListsScripts>,
}

pub(in crate::store) struct ChunkListsScripts {
    pub(in crate::store) offer: Script,
    pub(in crate::store) reopen: Script,
}

impl Default for ChunkListsScripts {
    fn default() -> Self {
        Self {
            offer: with_prelude(include_str!("offer_chunks.lua")),
            reopen: with_prelude(include_str!("reopen_chunk.lua")),
        }
    }
}

impl ChunkLists {
    pub fn new(redis: Redis) -> Self {
        Self { redis, scripts: Arc::default() }
    }
}

impl ChunkLists {
    /// Chooses chunks that want attention, at most `most`, and at most `window` being offered at a time: (chunk, round) of each.
    pub async fn pick_for_jobs(
        &self,
        id: &DeliveryId,
        (window, most): (usize, usize),
        served: f64,
        now: u32,
    ) -> Result<Vec<(u32, u32)>, StoreError> {
        let mut script = self.scripts.offer.prepare_invoke();
        script
            .key(keys::delivery(id))
            .key(keys::open(id))
            .key(keys::offered(id))
            .key(keys::rounds(id))
            .key(keys::aside(id));
        script.arg(now).arg(window).arg(most).arg(served);
        let flat: Vec<u32> = script.invoke_async(&mut self.redis.connection()).await?;
        Ok(flat.as_chunks::<2>().0.iter().map(|[chunk, round]| (*chunk, *round)).collect())
    }

    /// Lets every chunk that waits for a time be looked at: the clock was set back.
    pub async fn mark_all_ready(&self, id: &DeliveryId, now: u32) -> Result<(), StoreError> {
        let later: Vec<u32> =
            self.redis.connection().zrangebyscore(keys::open(id), now, "+inf").await?;
        let mut pipe = redis::pipe();
        for chunk in later {
            pipe.cmd("ZADD").arg(keys::open(id)).arg("XX").arg("LT").arg(now).arg(chunk).ignore();
        }
        self.redis.run(&pipe).await
    }

    /// How many chunks want attention, now or later.
    pub async fn ready_count(&self, id: &DeliveryId) -> Result<usize, StoreError> {
        Ok(self.redis.connection().zcard(keys::open(id)).await?)
    }

    /// The chunks a job was named for: chunk, when (Unix seconds), round.
    pub async fn with_jobs(&self, id: &DeliveryId) -> Result<Vec<(u32, u32, u32)>, StoreError> {
        let mut conn = self.redis.connection();
        let offered: Vec<(u32, f64)> = conn.zrange_withscores(keys::offered(id), 0, -1).await?;
        if offered.is_empty() {
            return Ok(Vec::new());
        }
        let chunks: Vec<u32> = offered.iter().map(|(chunk, _)| *chunk).collect();
        let rounds: Vec<Option<u32>> =
            redis::cmd("HMGET").arg(keys::rounds(id)).arg(chunks).query_async(&mut conn).await?;
        Ok(offered
            .into_iter()
            .zip(rounds)
            .map(|((chunk, at), round)| (chunk, at as u32, round.unwrap_or_default()))
            .collect())
    }

    /// Puts a chunk whose job is gone back among those that want attention.
    pub async fn return_to_ready(
        &self,
        at: &ChunkRef,
        round: u32,
        now: u32,
    ) -> Result<bool, StoreError> {
        let mut script = self.scripts.reopen.prepare_invoke();
        script
            .key(keys::open(&at.delivery))
            .key(keys::offered(&at.delivery))
            .key(keys::rounds(&at.delivery))
            .arg(at.chunk)
            .arg(round)
            .arg(now);
        Ok(script.invoke_async(&mut self.redis.connection()).await?)
    }

    /// Says that these chunks want attention now; those already waiting or set aside are left alone.
    pub async fn mark_ready(
        &self,
        id: &DeliveryId,
        chunks: impl Iterator<Item = u32>,
    ) -> Result<(), StoreError> {
        let aside = self.poisoned(id).await?;
        let mut pipe = redis::pipe();
        for chunk in chunks.filter(|chunk| !aside.contains(chunk)) {
            pipe.cmd("ZADD").arg(keys::open(id)).arg("NX").arg(0).arg(chunk).ignore();
        }
        self.redis.run(&pipe).await
    }

    /// Lets a chunk that was given back wait until then, if it wants attention at all.
    pub async fn postpone(&self, at: &ChunkRef, until: u32) -> Result<(), StoreError> {
        let mut later = redis::cmd("ZADD");
        later.arg(keys::open(&at.delivery)).arg("XX").arg("GT").arg(until).arg(at.chunk);
        Ok(later.query_async(&mut self.redis.connection()).await?)
    }
}
