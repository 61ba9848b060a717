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
    config::{self, DomainLimit},
    deliveries::{Context, unix_now},
    domain::{audience::address_mask, delivery::DeliveryId},
    metrics,
    store::{Store, StoreError},
};

/// Tokens are leased for so long; what is not used by then is gone, so that no more than a moment's worth is ever saved up.
const LEASED: Duration = Duration::from_secs(1);
/// Part of a second that one lease is for.
const PORTION: f64 = 0.1;
/// Who waits looks so often whether it may still go.
const LOOK: Duration = Duration::from_millis(100);
/// A daemon that came takes its share only then: the others know of it and have made room.
const SETTLED: Duration = Duration::from_secs(3);

/// One for a process. Cheap to clone.
#[derive(Clone)]
pub struct Throttles(pub(super) Arc<ThrottleState>);

pub(super) struct ThrottleState {
    pub(super) limits: Vec<DomainLimit>,
    breaker: config::BreakerSettings,
    buckets: Mutex<HashMap<String, Arc<tokio::sync::Mutex<LeasedTokens>>>>,
    /// Recipients that are claimed and not recorded, by limit.
    in_flight: Vec<AtomicUsize>,
    /// Connections of each limit that are this daemon's to use.
    shares: Vec<AtomicUsize>,
    pub(super) tallies: Mutex<ErrorRates>,
    /// Breakers that are open, and until when (Unix seconds).
    broken: Mutex<HashMap<String, u32>>,
    broken_deliveries: Mutex<HashMap<DeliveryId, u32>>,
}

#[derive(Default)]
struct LeasedTokens {
    tokens: u64,
    leased_until: Option<Instant>,
    empty_until: Option<Instant>,
}

impl Throttles {
    pub fn new(config: &config::Config) -> Self {
        let limits = config.throttle.domains.clone();
        Self(Arc::new(ThrottleState {
            breaker: config.breaker.clone(),
            buckets: Mutex::default(),
            in_flight: limits.iter().map(|_| AtomicUsize::new(0)).collect(),
            shares: limits.iter().map(|_| AtomicUsize::new(0)).collect(),
            tallies: Mutex::default(),
            broken: Mutex::default(),
            broken_deliveries: Mutex::default(),
            limits,
        }))
    }

    /// The first limit that is for this domain.
    pub(super) fn limit_of(&self, domain: &str) -> Option<usize> {
        let is_for = |limit: &DomainLimit| limit.domains.iter().any(|mask| address_mask::matches(mask, domain));
        self.0.limits.iter().position(is_for)
    }

    /// Up to `wanted` tokens at `rate` per second; if there is none, how long until the next one. Leased from Redis in
    /// portions: not every message costs a round trip.
    pub(super) async fn take(&self, store: &Store, name: &str, rate: f64, wanted: u64) -> Result<u64, Duration> {
        let bucket = locked(&self.0.buckets).entry(name.to_owned()).or_default().clone();
        let mut bucket = bucket.lock().await;
        let now = Instant::now();
        if bucket.leased_until.is_none_or(|until| until <= now) {
            bucket.tokens = 0;
        }
        if bucket.tokens == 0 {
            if let Some(left) =
                bucket.empty_until.and_then(|until| until.checked_duration_since(now)).filter(|left| !left.is_zero())
            {
                return Err(left);
            }
            // without Redis nothing is sent anyway
            let portion = wanted.max((rate * PORTION) as u64);
            let (taken, wait) = store.take_tokens(name, rate, portion).await.unwrap_or((0, LEASED));
            *bucket = LeasedTokens { tokens: taken, leased_until: Some(now + LEASED), empty_until: Some(now + wait) };
            if taken == 0 {
                return Err(wait);
            }
        }
        let taken = wanted.min(bucket.tokens);
        bucket.tokens -= taken;
        Ok(taken)
    }

    /// Waits for a relay's limit, as long as one may go at all.
    pub async fn wait_for_relay(&self, store: &Store, relay: &str, rate: f64, may_go: &(dyn Fn() -> bool + Sync)) {
        while may_go() {
            match self.take(store, &format!("relay:{relay}"), rate, 1).await {
                Ok(_) => return,
                Err(wait) => tokio::time::sleep(wait.min(LOOK)).await,
            }
        }
    }

    /// Gives tokens back that were taken and not used.
    pub(super) async fn put_back(&self, name: &str, tokens: u64) {
        let bucket = locked(&self.0.buckets).get(name).cloned();
        if let Some(bucket) = bucket {
            bucket.lock().await.tokens += tokens;
        }
    }

    /// Until when the breaker of a domain is open.
    pub(super) fn broken(&self, domain: &str, now: u32) -> Option<u32> {
        locked(&self.0.broken).get(domain).copied().filter(|until| *until > now)
    }

    pub(super) fn any_broken(&self) -> bool {
        !locked(&self.0.broken).is_empty()
    }

    /// Until when the breaker of a delivery is open.
    pub fn delivery_broken(&self, id: &DeliveryId, now: u32) -> Option<u32> {
        locked(&self.0.broken_deliveries).get(id).copied().filter(|until| *until > now)
    }

    /// Whether this daemon may begin with one more recipient of a limit.
    pub(super) fn enter(&self, limit: usize) -> bool {
        if self.0.limits[limit].connections == 0 {
            return true;
        }
        let share = self.0.shares[limit].load(Ordering::Relaxed);
        let begin = |n| (n < share).then_some(n + 1);
        self.0.in_flight[limit].fetch_update(Ordering::Relaxed, Ordering::Relaxed, begin).is_ok()
    }

    pub(super) fn leave(&self, limit: usize) {
        if self.0.limits[limit].connections > 0 {
            self.0.in_flight[limit].fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Context {
    /// The task: what the other daemons have found, and this one's share.
    pub async fn observe_throttles(&self) -> bool {
        let looked = self.look_at_throttles().await;
        if let Err(error) = &looked {
            tracing::debug!(%error, "the throttles cannot be looked at");
        }
        looked.is_ok()
    }

    async fn look_at_throttles(&self) -> Result<(), StoreError> {
        let shared = &self.throttle.0;
        let (attendance, now) = (self.store.attend(self.owner).await?, unix_now());
        let n = attendance.daemons.max(1);
        // alone there is nobody to make room
        let settled = n == 1 || attendance.here_for >= SETTLED;
        let mine = |all: usize| if settled { all / n + usize::from(attendance.place < all % n) } else { 0 };
        for (limit, share) in shared.limits.iter().zip(&shared.shares) {
            share.store(mine(limit.connections), Ordering::Relaxed);
        }
        for ((_, settings), relay) in self.config.relays().into_iter().zip(self.relays.all()) {
            if settings.total_connections > 0 {
                relay.allow(mine(settings.total_connections).min(settings.connections));
            }
        }
        self.turns.allow(|route| self.relays.allowed(route));
        // a clock that was set back must not keep them open for longer
        let most = |minutes: f64| now.saturating_add((minutes * 60.0).ceil() as u32);
        let domains_until = most(shared.breaker.domain_pause_minutes);
        let deliveries_until = most(shared.breaker.delivery_pause_minutes);
        let broken = self.store.broken_domains(now).await?;
        metrics::breakers("domain", broken.len());
        *locked(&shared.broken) = broken.into_iter().map(|(domain, until)| (domain, until.min(domains_until))).collect();
        let broken = self.store.broken_deliveries(now).await?;
        metrics::breakers("delivery", broken.len());
        let parsed = broken.into_iter().filter_map(|(id, until)| Some((id.parse().ok()?, until.min(deliveries_until))));
        *locked(&shared.broken_deliveries) = parsed.collect();
        locked(&shared.tallies).tidy(Instant::now(), shared.breaker.window());
        let now = Instant::now();
        let in_use = |bucket: &LeasedTokens| bucket.leased_until.is_some_and(|until| until > now);
        locked(&shared.buckets).retain(|_, bucket| Arc::strong_count(bucket) > 1 || bucket.try_lock().is_ok_and(|b| in_use(&b)));
        Ok(())
    }

    /// Opens the breaker of a domain.
    pub(super) async fn break_domain(&self, domain: &str, share: f64) {
        let minutes = self.config.breaker.domain_pause_minutes;
        let until = unix_now().saturating_add((minutes * 60.0).ceil() as u32);
        locked(&self.throttle.0.broken).insert(domain.to_owned(), until);
        metrics::breaker_tripped("domain");
        tracing::error!(
            domain,
            errors_percent = (share * 100.0).round(),
            minutes,
            "too many errors: nothing is sent to this domain for a while"
        );
        if let Err(error) = self.store.break_domain(domain, until).await {
            tracing::debug!(%error, "the other daemons do not know of it");
        }
    }

    /// Opens the breaker of a delivery.
    pub(super) async fn break_delivery(&self, id: &DeliveryId, share: f64) {
        let minutes = self.config.breaker.delivery_pause_minutes;
        let until = unix_now().saturating_add((minutes * 60.0).ceil() as u32);
        locked(&self.throttle.0.broken_deliveries).insert(id.clone(), until);
        metrics::breaker_tripped("delivery");
        tracing::error!(delivery.id = %id, refusals_percent = (share * 100.0).round(), minutes, "its mail is refused: it pauses for a while");
        if let Err(error) = self.store.break_delivery(id, until).await {
            tracing::debug!(%error, "the other daemons do not know of it");
        }
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
