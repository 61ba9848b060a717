//! Lists of the chunks of a delivery: open chunks need a job, offered chunks have one.

use std::{collections::BTreeSet, sync::Arc};

use redis::{AsyncCommands, Script};

use crate::{
    domain::{delivery::DeliveryId, ledger::ChunkRef},
    store::{Redis, StoreError, keys, with_prelude},
};

/// Lists of open, offered and poisoned chunks, and the fair queue of deliveries. Cheap to clone.
#[derive(Clone)]
pub struct ChunkLists {
    pub(super) redis: Redis,
    scripts: Arc<ChunkListScripts>,
}

struct ChunkListScripts {
    offer_chunks: Script,
    reopen_chunk: Script,
}

impl Default for ChunkListScripts {
    fn default() -> Self {
        Self {
            offer_chunks: with_prelude(include_str!("offer_chunks.lua")),
            reopen_chunk: with_prelude(include_str!("reopen_chunk.lua")),
        }
    }
}

impl ChunkLists {
    /// Makes the handle from a connection.
    pub fn new(redis: Redis) -> Self {
        Self { redis, scripts: Arc::default() }
    }

    /// Chooses open chunks that get a job now, and counts them as offered. Returns chunk and round
    /// of each.
    ///
    /// Chooses at most `maximum` chunks, and keeps at most `window` chunks offered at a time.
    /// `virtual_time` is the time of these jobs in the fair queue.
    pub async fn pick_for_jobs(
        &self,
        id: &DeliveryId,
        (window, maximum): (usize, usize),
        virtual_time: f64,
        now: u32,
    ) -> Result<Vec<(u32, u32)>, StoreError> {
        let mut script = self.scripts.offer_chunks.prepare_invoke();
        script
            .key(keys::delivery(id))
            .key(keys::open(id))
            .key(keys::offered(id))
            .key(keys::rounds(id))
            .key(keys::poisoned(id));
        script.arg(now).arg(window).arg(maximum).arg(virtual_time);
        let flat: Vec<u32> = script.invoke_async(&mut self.redis.connection()).await?;
        Ok(flat.as_chunks::<2>().0.iter().map(|[chunk, round]| (*chunk, *round)).collect())
    }

    /// Makes every open chunk due now, because the clock was set back.
    pub async fn mark_all_ready(&self, id: &DeliveryId, now: u32) -> Result<(), StoreError> {
        let later: Vec<u32> =
            self.redis.connection().zrangebyscore(keys::open(id), now, "+inf").await?;
        let mut pipe = redis::pipe();
        for chunk in later {
            pipe.cmd("ZADD").arg(keys::open(id)).arg("XX").arg("LT").arg(now).arg(chunk).ignore();
        }
        self.redis.run(&pipe).await
    }

    /// The number of open chunks, due now or later.
    pub async fn ready_count(&self, id: &DeliveryId) -> Result<usize, StoreError> {
        Ok(self.redis.connection().zcard(keys::open(id)).await?)
    }

    /// The offered chunks: chunk, when its job was queued (Unix seconds), round.
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

    /// Opens an offered chunk again because its job is gone. Returns false if the chunk got another
    /// job since `round`, or is not offered any more.
    pub async fn return_to_ready(
        &self,
        at: &ChunkRef,
        round: u32,
        now: u32,
    ) -> Result<bool, StoreError> {
        let mut script = self.scripts.reopen_chunk.prepare_invoke();
        script
            .key(keys::open(&at.delivery))
            .key(keys::offered(&at.delivery))
            .key(keys::rounds(&at.delivery))
            .arg(at.chunk)
            .arg(round)
            .arg(now);
        Ok(script.invoke_async(&mut self.redis.connection()).await?)
    }

    /// The poisoned chunks of a delivery. They get no job until a person asks for a retry.
    pub async fn poisoned(&self, id: &DeliveryId) -> Result<BTreeSet<u32>, StoreError> {
        Ok(self.redis.connection().smembers(keys::poisoned(id)).await?)
    }

    /// Opens these chunks, due now. Chunks that are open or poisoned stay as they are.
    pub async fn mark_ready(
        &self,
        id: &DeliveryId,
        chunks: impl Iterator<Item = u32>,
    ) -> Result<(), StoreError> {
        let poisoned = self.poisoned(id).await?;
        let mut pipe = redis::pipe();
        for chunk in chunks.filter(|chunk| !poisoned.contains(chunk)) {
            pipe.cmd("ZADD").arg(keys::open(id)).arg("NX").arg(0).arg(chunk).ignore();
        }
        self.redis.run(&pipe).await
    }

    /// Makes an open chunk due at `until` (Unix seconds) instead of earlier.
    pub async fn postpone(&self, at: &ChunkRef, until: u32) -> Result<(), StoreError> {
        let mut later = redis::cmd("ZADD");
        later.arg(keys::open(&at.delivery)).arg("XX").arg("GT").arg(until).arg(at.chunk);
        Ok(later.query_async(&mut self.redis.connection()).await?)
    }
}
