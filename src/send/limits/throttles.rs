//! Throttles: what one process holds of the limits that all daemons share, and the circuit breakers.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::error_rate::ErrorRates;
use crate::{
    clock::unix_now,
    config::{self, DomainLimit},
    domain::{audience::address_mask, delivery::DeliveryId},
    metrics,
    store::limits::LimitStore,
};

/// Tokens are leased for so long; what is not used by then is gone, so that no more than a moment's worth is ever saved up.
const LEASED: Duration = Duration::from_secs(1);
/// Part of a second that one lease is for.
const PORTION: f64 = 0.1;
/// Who waits looks so often whether it may still go.
const LOOK: Duration = Duration::from_millis(100);
/// A daemon that came takes its share only then: the others know of it and have made room.
pub(super) const SETTLED: Duration = Duration::from_secs(3);

/// One for a process. Cheap to clone.
#[derive(Clone)]
pub struct Throttles {
    pub(super) state: Arc<ThrottleState>,
    pub(super) store: LimitStore,
}

pub(super) struct ThrottleState {
    pub(super) limits: Vec<DomainLimit>,
    pub(super) breaker: config::BreakerSettings,
    pub(super) buckets: Mutex<HashMap<String, Arc<tokio::sync::Mutex<LeasedTokens>>>>,
    /// Recipients that are claimed and not recorded, by limit.
    in_flight: Vec<AtomicUsize>,
    /// Connections of each limit that are this daemon's to use.
    pub(super) shares: Vec<AtomicUsize>,
    pub(super) tallies: Mutex<ErrorRates>,
    /// Breakers that are open, and until when (Unix seconds).
    pub(super) broken: Mutex<HashMap<String, u32>>,
    pub(super) broken_deliveries: Mutex<HashMap<DeliveryId, u32>>,
}

#[derive(Default)]
pub(super) struct LeasedTokens {
    pub(super) tokens: u64,
    pub(super) leased_until: Option<Instant>,
    pub(super) empty_until: Option<Instant>,
}

impl Throttles {
    pub fn new(config: &config::Config, store: LimitStore) -> Self {
        let limits = config.throttle.domains.clone();
        let state = Arc::new(ThrottleState {
            breaker: config.breaker.clone(),
            buckets: Mutex::default(),
            in_flight: limits.iter().map(|_| AtomicUsize::new(0)).collect(),
            shares: limits.iter().map(|_| AtomicUsize::new(0)).collect(),
            tallies: Mutex::default(),
            broken: Mutex::default(),
            broken_deliveries: Mutex::default(),
            limits,
        });
        Self { state, store }
    }

    /// The first limit that is for this domain.
    pub(super) fn limit_of(&self, domain: &str) -> Option<usize> {
        let is_for = |limit: &DomainLimit| {
            limit.domains.iter().any(|mask| address_mask::matches(mask, domain))
        };
        self.state.limits.iter().position(is_for)
    }

    /// Up to `wanted` tokens at `rate` per second; if there is none, how long until the next one. Leased from Redis in
    /// portions: not every message costs a round trip.
    pub(super) async fn take(&self, name: &str, rate: f64, wanted: u64) -> Result<u64, Duration> {
        let bucket = locked(&self.state.buckets).entry(name.to_owned()).or_default().clone();
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
            // without Redis nothing is sent anyway
            let portion = wanted.max((rate * PORTION) as u64);
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

    /// Waits for a relay's limit, as long as one may go at all.
    pub async fn wait_for_relay(&self, relay: &str, rate: f64, may_go: &(dyn Fn() -> bool + Sync)) {
        while may_go() {
            match self.take(&format!("relay:{relay}"), rate, 1).await {
                Ok(_) => return,
                Err(wait) => tokio::time::sleep(wait.min(LOOK)).await,
            }
        }
    }

    /// Gives tokens back that were taken and not used.
    pub(super) async fn put_back(&self, name: &str, tokens: u64) {
        let bucket = locked(&self.state.buckets).get(name).cloned();
        if let Some(bucket) = bucket {
            bucket.lock().await.tokens += tokens;
        }
    }

    /// Until when the breaker of a domain is open.
    pub(super) fn domain_breaker(&self, domain: &str, now: u32) -> Option<u32> {
        locked(&self.state.broken).get(domain).copied().filter(|until| *until > now)
    }

    pub(super) fn has_open_domain_breakers(&self) -> bool {
        !locked(&self.state.broken).is_empty()
    }

    /// Until when the breaker of a delivery is open.
    pub fn delivery_breaker(&self, id: &DeliveryId, now: u32) -> Option<u32> {
        locked(&self.state.broken_deliveries).get(id).copied().filter(|until| *until > now)
    }

    /// Whether this daemon may begin with one more recipient of a limit.
    pub(super) fn enter(&self, limit: usize) -> bool {
        if self.state.limits[limit].connections == 0 {
            return true;
        }
        let share = self.state.shares[limit].load(Ordering::Relaxed);
        let begin = |n| (n < share).then_some(n + 1);
        self.state.in_flight[limit]
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, begin)
            .is_ok()
    }

    pub(super) fn leave(&self, limit: usize) {
        if self.state.limits[limit].connections > 0 {
            self.state.in_flight[limit].fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Throttles {
    /// Opens the breaker of a domain.
    pub(super) async fn open_domain_breaker(&self, domain: &str, share: f64) {
        let minutes = self.state.breaker.domain_pause_minutes;
        let until = unix_now().saturating_add((minutes * 60.0).ceil() as u32);
        locked(&self.state.broken).insert(domain.to_owned(), until);
        metrics::breaker_tripped("domain");
        tracing::error!(
            domain,
            errors_percent = (share * 100.0).round(),
            minutes,
            "too many errors: nothing is sent to this domain for a while"
        );
        if let Err(error) = self.store.open_domain_breaker(domain, until).await {
            tracing::debug!(%error, "the other daemons do not know of it");
        }
    }

    /// Opens the breaker of a delivery.
    pub(super) async fn open_delivery_breaker(&self, id: &DeliveryId, share: f64) {
        let minutes = self.state.breaker.delivery_pause_minutes;
        let until = unix_now().saturating_add((minutes * 60.0).ceil() as u32);
        locked(&self.state.broken_deliveries).insert(id.clone(), until);
        metrics::breaker_tripped("delivery");
        tracing::error!(delivery.id = %id, refusals_percent = (share * 100.0).round(), minutes, "its mail is refused: it pauses for a while");
        if let Err(error) = self.store.open_delivery_breaker(id, until).await {
            tracing::debug!(%error, "the other daemons do not know of it");
        }
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
