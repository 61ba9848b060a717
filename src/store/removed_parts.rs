//! Retention: deliveries by age, and which of their parts were removed.

use redis::AsyncCommands;

use super::{
    connection::{StoreError, damaged},
    delivery_store::DeliveryStore,
    keys,
};
use crate::domain::delivery::{DeliveryId, DeliveryState};

/// The parts of a delivery that retention has removed completely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RemovedParts {
    pub logs: bool,
    pub tracking: bool,
}

impl RemovedParts {
    /// Whether all wanted parts are removed.
    pub fn covers(self, wanted: Self) -> bool {
        (self.logs || !wanted.logs) && (self.tracking || !wanted.tracking)
    }
}

impl DeliveryStore {
    /// At most `limit` deliveries created before `seconds` (Unix time), from `offset`, the oldest
    /// first.
    pub async fn created_before(
        &self,
        seconds: f64,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<DeliveryId>, StoreError> {
        let (mut conn, to) = (self.redis.connection(), seconds * 1000.0);
        let ids: Vec<String> = conn
            .zrangebyscore_limit(keys::DELIVERIES, "-inf", to, offset as isize, limit as isize)
            .await?;
        ids.iter().map(|id| id.parse().map_err(damaged)).collect()
    }

    /// The states and the removed parts of some deliveries.
    pub async fn removed_parts(
        &self,
        ids: &[DeliveryId],
    ) -> Result<Vec<(Option<DeliveryState>, RemovedParts)>, StoreError> {
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
            Ok((state, RemovedParts { logs: logs.is_some(), tracking: tracking.is_some() }))
        };
        found.into_iter().map(read).collect()
    }

    /// Notes which parts were removed, so that no later pass looks for them.
    pub async fn note_removed(
        &self,
        id: &DeliveryId,
        removed: RemovedParts,
    ) -> Result<(), StoreError> {
        let fields = [("swept_logs", removed.logs), ("swept_tracking", removed.tracking)];
        let fields: Vec<(&str, u8)> =
            fields.into_iter().filter(|(_, done)| *done).map(|(name, _)| (name, 1)).collect();
        Ok(self.redis.connection().hset_multiple(keys::delivery(id), &fields).await?)
    }
}
