//! TODO head

use std::collections::HashMap;

use redis::AsyncCommands;
use serde::Serialize;

use super::slices::AudienceStore;
use crate::{
    domain::delivery::DeliveryId,
    store::{StoreError, keys},
};

/// How far a preparation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, serde::Deserialize)]
pub struct PreparationProgress {
    pub generation: u32,
    pub done: u64,
    pub of: u64,
    /// Raised while its worker lives.
    pub beat: u64,
}

impl AudienceStore {
    pub async fn note_preparation(
        &self,
        id: &DeliveryId,
        progress: &PreparationProgress,
    ) -> Result<(), StoreError> {
        let fields = [
            ("generation", u64::from(progress.generation)),
            ("done", progress.done),
            ("of", progress.of),
            ("beat", progress.beat),
        ];
        Ok(self.redis.connection().hset_multiple(keys::preparation(id), &fields).await?)
    }

    /// Counts a beginning of a preparation; how many there were since its last end or request.
    pub async fn count_preparation(&self, id: &DeliveryId) -> Result<u32, StoreError> {
        Ok(self.redis.connection().hincr(keys::preparation(id), "begun", 1).await?)
    }

    pub async fn forget_preparations(&self, id: &DeliveryId) -> Result<(), StoreError> {
        Ok(self.redis.connection().hdel(keys::preparation(id), "begun").await?)
    }

    pub async fn preparation(&self, id: &DeliveryId) -> Result<PreparationProgress, StoreError> {
        let f: HashMap<String, u64> =
            self.redis.connection().hgetall(keys::preparation(id)).await?;
        let get = |name| f.get(name).copied().unwrap_or_default();
        Ok(PreparationProgress {
            generation: get("generation") as u32,
            done: get("done"),
            of: get("of"),
            beat: get("beat"),
        })
    }
}
