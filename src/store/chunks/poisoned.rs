//! TODO head

use std::collections::BTreeSet;

use redis::AsyncCommands;

use super::chunk_lists::ChunkLists;
use crate::{
    domain::{delivery::DeliveryId, ledger::ChunkRef},
    store::{StoreError, keys},
};

impl ChunkLists {
    /// The chunks that were set aside: no job is named for them until a person asks for it.
    pub async fn poisoned(&self, id: &DeliveryId) -> Result<BTreeSet<u32>, StoreError> {
        Ok(self.redis.connection().smembers(keys::aside(id)).await?)
    }

    pub async fn is_poisoned(&self, at: &ChunkRef) -> Result<bool, StoreError> {
        Ok(self.redis.connection().sismember(keys::aside(&at.delivery), at.chunk).await?)
    }

    /// Sets a chunk aside. Its lease is to be released afterwards: if nothing is left to do it is aside no more.
    pub async fn mark_poisoned(&self, at: &ChunkRef) -> Result<(), StoreError> {
        Ok(self.redis.connection().sadd(keys::aside(&at.delivery), at.chunk).await?)
    }

    /// Puts a chunk that was set aside back among those that want attention, as if nothing had happened.
    pub async fn retry_poisoned(&self, at: &ChunkRef) -> Result<(), StoreError> {
        let mut pipe = redis::pipe();
        pipe.atomic().srem(keys::aside(&at.delivery), at.chunk).ignore();
        pipe.hdel(keys::crashes(&at.delivery), at.chunk)
            .ignore()
            .zadd(keys::open(&at.delivery), at.chunk, 0)
            .ignore();
        self.redis.run(&pipe).await
    }

    /// Counts a worker that died with a chunk; how many there were since its last good end.
    pub async fn count_crash(&self, at: &ChunkRef) -> Result<u32, StoreError> {
        Ok(self.redis.connection().hincr(keys::crashes(&at.delivery), at.chunk, 1).await?)
    }

    pub async fn forget_crashes(&self, at: &ChunkRef) -> Result<(), StoreError> {
        Ok(self.redis.connection().hdel(keys::crashes(&at.delivery), at.chunk).await?)
    }
}
