//! What all daemons share to hold themselves back: token buckets, who is there, which breakers are open.

use std::{collections::HashMap, sync::Arc, time::Duration};

use redis::{AsyncCommands, Script};

use crate::{
    domain::delivery::DeliveryId,
    store::{Redis, StoreError, keys},
};

/// A daemon's place among those that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DaemonPresence {
    pub here_for: Duration,
    pub place: usize,
    pub daemons: usize,
}

/// Limits that all daemons share. Cheap to clone.
#[derive(Clone)]
pub struct LimitStore {
    pub(in crate::store) redis: Redis,
    pub(in crate::store) scripts: Arc<LimitScripts>,
}

pub(in crate::store) struct LimitScripts {
    pub(in crate::store) tokens: Script,
    pub(in crate::store) attend: Script,
}

impl Default for LimitScripts {
    fn default() -> Self {
        Self {
            tokens: Script::new(include_str!("take_tokens.lua")),
            attend: Script::new(include_str!("daemon_presence.lua")),
        }
    }
}

impl LimitStore {
    pub fn new(redis: Redis) -> Self {
        Self { redis, scripts: Arc::default() }
    }
}

impl LimitStore {
    /// Takes tokens from a bucket that is filled at `rate` per second and holds a second's worth: how many, and how long until
    /// the next one.
    pub async fn take_tokens(
        &self,
        bucket: &str,
        rate: f64,
        wanted: u64,
    ) -> Result<(u64, Duration), StoreError> {
        let mut script = self.scripts.tokens.prepare_invoke();
        script.key(keys::bucket(bucket)).arg(rate).arg(rate.max(1.0)).arg(wanted);
        let (taken, wait_ms): (u64, u64) =
            script.invoke_async(&mut self.redis.connection()).await?;
        Ok((taken, Duration::from_millis(wait_ms)))
    }

    /// Says that this daemon is there.
    pub async fn announce_daemon(&self, owner: u64) -> Result<DaemonPresence, StoreError> {
        let mut script = self.scripts.attend.prepare_invoke();
        script.key(keys::ATTENDANCE).key(keys::ARRIVALS).arg(format!("{owner:016x}"));
        let (ms, place, daemons): (u64, usize, usize) =
            script.invoke_async(&mut self.redis.connection()).await?;
        Ok(DaemonPresence { here_for: Duration::from_millis(ms), place, daemons })
    }

    /// Opens the breaker of a domain until then (Unix seconds).
    pub async fn open_domain_breaker(&self, domain: &str, until: u32) -> Result<(), StoreError> {
        Ok(self.redis.connection().hset(keys::BREAKERS, domain, until).await?)
    }

    /// The domains whose breakers are open at `now`, and until when; the others are forgotten.
    pub async fn open_domain_breakers(&self, now: u32) -> Result<HashMap<String, u32>, StoreError> {
        self.broken(keys::BREAKERS, now).await
    }

    /// Opens the breaker of a delivery until then: no job is named for its chunks.
    pub async fn open_delivery_breaker(
        &self,
        id: &DeliveryId,
        until: u32,
    ) -> Result<(), StoreError> {
        Ok(self.redis.connection().hset(keys::BROKEN_DELIVERIES, id.as_str(), until).await?)
    }

    /// Closes it.
    pub async fn close_delivery_breaker(&self, id: &DeliveryId) -> Result<(), StoreError> {
        Ok(self.redis.connection().hdel(keys::BROKEN_DELIVERIES, id.as_str()).await?)
    }

    /// The deliveries whose breakers are open at `now`, and until when.
    pub async fn open_delivery_breakers(
        &self,
        now: u32,
    ) -> Result<HashMap<String, u32>, StoreError> {
        self.broken(keys::BROKEN_DELIVERIES, now).await
    }

    /// Until when the breaker of a delivery is open; 0 if it is not.
    pub async fn delivery_breaker_until(&self, id: &DeliveryId) -> Result<u32, StoreError> {
        let until: Option<u32> =
            self.redis.connection().hget(keys::BROKEN_DELIVERIES, id.as_str()).await?;
        Ok(until.unwrap_or_default())
    }

    async fn broken(&self, key: &str, now: u32) -> Result<HashMap<String, u32>, StoreError> {
        let mut open: HashMap<String, u32> = self.redis.connection().hgetall(key).await?;
        let closed: Vec<String> =
            open.extract_if(|_, until| *until <= now).map(|(name, _)| name).collect();
        if !closed.is_empty() {
            let () = self.redis.connection().hdel(key, closed).await?;
        }
        Ok(open)
    }
}
