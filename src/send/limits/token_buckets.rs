//! Token buckets: a daemon leases tokens from Redis in portions.
//!
//! All daemons share a bucket, and each message takes a token. With portions, only few messages
//! cost a round trip.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::store::limits::LimitStore;

/// How long leased tokens may be used. Unused tokens are lost, so that no burst is saved up.
const LEASED: Duration = Duration::from_secs(1);
/// The part of a second's tokens that one portion holds.
const PORTION: f64 = 0.1;

/// The tokens that this daemon has leased, by bucket.
pub(super) struct TokenBuckets {
    store: LimitStore,
    buckets: Mutex<HashMap<String, Arc<tokio::sync::Mutex<LeasedTokens>>>>,
}

#[derive(Default)]
struct LeasedTokens {
    tokens: u64,
    leased_until: Option<Instant>,
    empty_until: Option<Instant>,
}

impl TokenBuckets {
    pub(super) fn new(store: LimitStore) -> Self {
        Self { store, buckets: Mutex::default() }
    }

    /// Takes up to `wanted` tokens from a bucket that is filled at `rate` per second.
    ///
    /// # Errors
    /// The time until the next token, if there is none now.
    pub(super) async fn take(&self, name: &str, rate: f64, wanted: u64) -> Result<u64, Duration> {
        let bucket = self.buckets().entry(name.to_owned()).or_default().clone();
        let mut bucket = bucket.lock().await;
        let now = Instant::now();
        if bucket.leased_until.is_none_or(|until| until <= now) {
            bucket.tokens = 0;
        }
        if bucket.tokens == 0 {
            if let Some(left) = bucket
                .empty_until
                .and_then(|until| until.checked_duration_since(now))
                .filter(|left| !left.is_zero())
            {
                return Err(left);
            }
            let portion = wanted.max((rate * PORTION) as u64);
            // without Redis nothing is sent anyway
            let (taken, wait) =
                self.store.take_tokens(name, rate, portion).await.unwrap_or((0, LEASED));
            *bucket = LeasedTokens {
                tokens: taken,
                leased_until: Some(now + LEASED),
                empty_until: Some(now + wait),
            };
            if taken == 0 {
                return Err(wait);
            }
        }
        let taken = wanted.min(bucket.tokens);
        bucket.tokens -= taken;
        Ok(taken)
    }

    /// Puts back tokens that were taken and not used.
    pub(super) async fn put_back(&self, name: &str, tokens: u64) {
        let bucket = self.buckets().get(name).cloned();
        if let Some(bucket) = bucket {
            bucket.lock().await.tokens += tokens;
        }
    }

    /// Forgets the buckets that nobody uses and whose tokens are lost.
    pub(super) fn forget_unused(&self) {
        let now = Instant::now();
        let is_leased =
            |bucket: &LeasedTokens| bucket.leased_until.is_some_and(|until| until > now);
        self.buckets().retain(|_, bucket| {
            Arc::strong_count(bucket) > 1
                || bucket.try_lock().is_ok_and(|bucket| is_leased(&bucket))
        });
    }

    fn buckets(&self) -> MutexGuard<'_, HashMap<String, Arc<tokio::sync::Mutex<LeasedTokens>>>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
