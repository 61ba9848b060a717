//! What retention asks and removes: deliveries by age, what was removed of each, tracking logs.

use redis::AsyncCommands;

use super::{
    connection::{StoreError, damaged},
    deliveries::DeliveryStore,
};
use crate::{
    domain::delivery::{DeliveryId, DeliveryState},
    store::keys,
};

/// What was removed of a delivery to the last key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SweptParts {
    pub logs: bool,
    pub tracking: bool,
}

impl SweptParts {
    pub fn covers(self, wanted: Self) -> bool {
        (self.logs || !wanted.logs) && (self.tracking || !wanted.tracking)
    }
}

impl DeliveryStore {
    /// Deliveries that were created before an instant (Unix seconds), the oldest first.
    pub async fn created_before(
        &self,
        seconds: f64,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<DeliveryId>, StoreError> {
        let (mut conn, to) = (self.redis.connection(), seconds * 1000.0);
        let ids: Vec<String> = conn
            .zrangebyscore_limit(keys::INDEX, "-inf", to, offset as isize, limit as isize)
            .await?;
        ids.iter().map(|id| id.parse().map_err(damaged)).collect()
    }

    /// The states of some deliveries, and what was removed of them.
    pub async fn removed_parts(
        &self,
        ids: &[DeliveryId],
    ) -> Result<Vec<(Option<DeliveryState>, SweptParts)>, StoreError> {
        type Fields = (Option<String>, Option<u8>, Option<u8>);
        let mut pipe = redis::pipe();
        for id in ids {
            pipe.cmd("HMGET").arg(keys::delivery(id)).arg(&[
                "state",
                "swept_logs",
                "swept_tracking",
            ]);
        }
        let found: Vec<Fields> = if ids.is_empty() {
            Vec::new()
        } else {
            pipe.query_async(&mut self.redis.connection()).await?
        };
        let read = |(state, logs, tracking): Fields| {
            let state = state.map(|word| word.parse().map_err(damaged)).transpose()?;
            Ok((state, SweptParts { logs: logs.is_some(), tracking: tracking.is_some() }))
        };
        found.into_iter().map(read).collect()
    }

    /// Notes what was removed, so that no later pass looks for it.
    pub async fn note_removed(&self, id: &DeliveryId, swept: SweptParts) -> Result<(), StoreError> {
        let fields = [("swept_logs", swept.logs), ("swept_tracking", swept.tracking)];
        let fields: Vec<(&str, u8)> =
            fields.into_iter().filter(|(_, done)| *done).map(|(name, _)| (name, 1)).collect();
        Ok(self.redis.connection().hset_multiple(keys::delivery(id), &fields).await?)
    }
}
