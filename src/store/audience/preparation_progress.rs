//! The progress of a preparation, and how often it was begun.

use std::collections::HashMap;

use redis::AsyncCommands;
use serde::Serialize;

use super::slices::AudienceStore;
use crate::{
    domain::delivery::DeliveryId,
    store::{StoreError, keys},
};

/// The progress of a preparation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, serde::Deserialize)]
pub struct PreparationProgress {
    pub generation: u32,
    /// Number of recipients that are done.
    pub done: u64,
    /// Number of all recipients.
    pub of: u64,
    /// A counter that rises while the worker lives.
    pub beat: u64,
}

impl AudienceStore {
    /// Notes the progress of a preparation.
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

    /// Counts that a preparation begins. Returns how often it has begun since it last ended or was
    /// requested.
    pub async fn count_preparation(&self, id: &DeliveryId) -> Result<u32, StoreError> {
        Ok(self.redis.connection().hincr(keys::preparation(id), "begun", 1).await?)
    }

    /// Forgets how often a preparation has begun, because it ended or is requested again.
    pub async fn forget_preparations(&self, id: &DeliveryId) -> Result<(), StoreError> {
        Ok(self.redis.connection().hdel(keys::preparation(id), "begun").await?)
    }

    /// The progress of a preparation; all zero if there is none.
    pub async fn preparation(&self, id: &DeliveryId) -> Result<PreparationProgress, StoreError> {
        let fields: HashMap<String, u64> =
            self.redis.connection().hgetall(keys::preparation(id)).await?;
        let get = |name| fields.get(name).copied().unwrap_or_default();
        Ok(PreparationProgress {
            generation: get("generation") as u32,
            done: get("done"),
            of: get("of"),
            beat: get("beat"),
        })
    }
}
