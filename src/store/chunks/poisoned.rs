//! Poisoned chunks: marks and unmarks chunks that kill their workers or cannot be sent.

use redis::AsyncCommands;

use super::chunk_lists::ChunkLists;
use crate::{
    domain::ledger::ChunkRef,
    store::{StoreError, keys},
};

impl ChunkLists {
    /// Whether a chunk is poisoned.
    pub async fn is_poisoned(&self, at: &ChunkRef) -> Result<bool, StoreError> {
        Ok(self.redis.connection().sismember(keys::poisoned(&at.delivery), at.chunk).await?)
    }

    /// Marks a chunk as poisoned. The caller must give the lease on the chunk back afterwards.
    /// Giving back removes the mark if the chunk has nothing left to send.
    pub async fn mark_poisoned(&self, at: &ChunkRef) -> Result<(), StoreError> {
        Ok(self.redis.connection().sadd(keys::poisoned(&at.delivery), at.chunk).await?)
    }

    /// Opens a poisoned chunk again and forgets its crashes.
    pub async fn retry_poisoned(&self, at: &ChunkRef) -> Result<(), StoreError> {
        let mut pipe = redis::pipe();
        pipe.atomic().srem(keys::poisoned(&at.delivery), at.chunk).ignore();
        pipe.hdel(keys::crashes(&at.delivery), at.chunk)
            .ignore()
            .zadd(keys::open(&at.delivery), at.chunk, 0)
            .ignore();
        self.redis.run(&pipe).await
    }

    /// Counts a worker that died with a chunk. Returns the number since the last completed job or
    /// retry.
    pub async fn count_crash(&self, at: &ChunkRef) -> Result<u32, StoreError> {
        Ok(self.redis.connection().hincr(keys::crashes(&at.delivery), at.chunk, 1).await?)
    }

    /// Forgets the crashes of a chunk, after a completed job.
    pub async fn forget_crashes(&self, at: &ChunkRef) -> Result<(), StoreError> {
        Ok(self.redis.connection().hdel(keys::crashes(&at.delivery), at.chunk).await?)
    }
}
