//! Token buckets, caps on proofs, present daemons and open circuit breakers, shared by all daemons.

use std::{collections::HashMap, sync::Arc, time::Duration};

use redis::{AsyncCommands, Script};

use crate::{
    domain::delivery::DeliveryId,
    store::{Redis, StoreError, keys},
};

/// The period of the cap on proofs.
const HOUR_MS: u64 = 3_600_000;

/// A daemon among all present daemons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DaemonPresence {
    /// Time since this daemon arrived.
    pub present_for: Duration,
    /// Rank of this daemon by arrival, from 0.
    pub rank: usize,
    /// Number of present daemons.
    pub daemons: usize,
}

/// Limits that all daemons share. Cheap to clone.
#[derive(Clone)]
pub struct LimitStore {
    redis: Redis,
    scripts: Arc<LimitScripts>,
}

struct LimitScripts {
    take_tokens: Script,
    take_proofs: Script,
    daemon_presence: Script,
}

impl Default for LimitScripts {
    fn default() -> Self {
        Self {
            take_tokens: Script::new(include_str!("take_tokens.lua")),
            take_proofs: Script::new(include_str!("take_proofs.lua")),
            daemon_presence: Script::new(include_str!("daemon_presence.lua")),
        }
    }
}

impl LimitStore {
    /// Makes the handle from a connection.
    pub fn new(redis: Redis) -> Self {
        Self { redis, scripts: Arc::default() }
    }

    /// Takes at most `wanted` tokens from a bucket. Returns the number, and the time until the next
    /// token.
    ///
    /// The bucket gets `rate` tokens per second. It holds the tokens of one second, and at least
    /// one.
    pub async fn take_tokens(
        &self,
        bucket: &str,
        rate: f64,
        wanted: u64,
    ) -> Result<(u64, Duration), StoreError> {
        let mut script = self.scripts.take_tokens.prepare_invoke();
        script.key(keys::token_bucket(bucket)).arg(rate).arg(rate.max(1.0)).arg(wanted);
        let (taken, wait_ms): (u64, u64) =
            script.invoke_async(&mut self.redis.connection()).await?;
        Ok((taken, Duration::from_millis(wait_ms)))
    }

    /// Counts proofs of a principal, and returns `None`. If they would exceed `per_hour` within an
    /// hour, counts nothing and returns how long the principal must wait.
    pub async fn take_proofs(
        &self,
        principal: &str,
        proofs: u64,
        per_hour: u64,
    ) -> Result<Option<Duration>, StoreError> {
        let mut script = self.scripts.take_proofs.prepare_invoke();
        script.key(keys::proofs_sent(principal)).arg(proofs).arg(per_hour).arg(HOUR_MS);
        let wait_ms: u64 = script.invoke_async(&mut self.redis.connection()).await?;
        Ok((wait_ms > 0).then(|| Duration::from_millis(wait_ms)))
    }

    /// Notes that this daemon is present. A daemon that is silent for ten seconds is dropped.
    pub async fn announce_daemon(&self, owner: u64) -> Result<DaemonPresence, StoreError> {
        let mut script = self.scripts.daemon_presence.prepare_invoke();
        script.key(keys::DAEMONS_SEEN).key(keys::DAEMON_ARRIVALS).arg(format!("{owner:016x}"));
        let (ms, rank, daemons): (u64, usize, usize) =
            script.invoke_async(&mut self.redis.connection()).await?;
        Ok(DaemonPresence { present_for: Duration::from_millis(ms), rank, daemons })
    }

    /// Opens the circuit breaker of a recipient domain until `until` (Unix seconds).
    pub async fn open_domain_breaker(&self, domain: &str, until: u32) -> Result<(), StoreError> {
        Ok(self.redis.connection().hset(keys::DOMAIN_BREAKERS, domain, until).await?)
    }

    /// The domains with open circuit breakers, and until when each is open. Breakers that are over
    /// are removed.
    pub async fn open_domain_breakers(&self, now: u32) -> Result<HashMap<String, u32>, StoreError> {
        self.open_breakers(keys::DOMAIN_BREAKERS, now).await
    }

    /// Opens the circuit breaker of a delivery until `until` (Unix seconds). Its chunks get no
    /// jobs.
    pub async fn open_delivery_breaker(
        &self,
        id: &DeliveryId,
        until: u32,
    ) -> Result<(), StoreError> {
        Ok(self.redis.connection().hset(keys::DELIVERY_BREAKERS, id.as_str(), until).await?)
    }

    /// Closes the circuit breaker of a delivery.
    pub async fn close_delivery_breaker(&self, id: &DeliveryId) -> Result<(), StoreError> {
        Ok(self.redis.connection().hdel(keys::DELIVERY_BREAKERS, id.as_str()).await?)
    }

    /// The ids of deliveries with open circuit breakers, and until when each is open. Breakers that
    /// are over are removed.
    pub async fn open_delivery_breakers(
        &self,
        now: u32,
    ) -> Result<HashMap<String, u32>, StoreError> {
        self.open_breakers(keys::DELIVERY_BREAKERS, now).await
    }

    /// Until when the circuit breaker of a delivery is open (Unix seconds). For a closed one this
    /// is 0 or a time in the past.
    pub async fn delivery_breaker_until(&self, id: &DeliveryId) -> Result<u32, StoreError> {
        let until: Option<u32> =
            self.redis.connection().hget(keys::DELIVERY_BREAKERS, id.as_str()).await?;
        Ok(until.unwrap_or_default())
    }

    async fn open_breakers(&self, key: &str, now: u32) -> Result<HashMap<String, u32>, StoreError> {
        let mut open: HashMap<String, u32> = self.redis.connection().hgetall(key).await?;
        let over: Vec<String> =
            open.extract_if(|_, until| *until <= now).map(|(name, _)| name).collect();
        if !over.is_empty() {
            let () = self.redis.connection().hdel(key, over).await?;
        }
        Ok(open)
    }
}
