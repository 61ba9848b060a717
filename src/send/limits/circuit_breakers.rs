//! Circuit breakers: pause a recipient domain or a delivery while its error rate is too high.
//!
//! The daemon that sees the errors opens the breaker. The other daemons learn of the breaker
//! through Redis.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::error_rate::{ErrorBound, ErrorRates};
use crate::{
    clock::unix_now,
    config::BreakerSettings,
    domain::{delivery::DeliveryId, ledger::Status, outcome::FailureReason},
    live::Live,
    metrics,
    store::{StoreError, chunks::Report, limits::LimitStore},
};

/// The circuit breakers as this daemon knows them.
pub(super) struct CircuitBreakers {
    pub(super) settings: Live<BreakerSettings>,
    store: LimitStore,
    error_rates: Mutex<ErrorRates>,
    /// The domains whose breaker is open, and until when (Unix seconds).
    open_domains: Mutex<HashMap<String, u32>>,
    /// The deliveries whose breaker is open, and until when (Unix seconds).
    open_deliveries: Mutex<HashMap<DeliveryId, u32>>,
}

impl CircuitBreakers {
    pub(super) fn new(settings: BreakerSettings, store: LimitStore) -> Self {
        Self {
            settings: Live::new(settings),
            store,
            error_rates: Mutex::default(),
            open_domains: Mutex::default(),
            open_deliveries: Mutex::default(),
        }
    }

    /// Returns until when the breaker of a domain is open (Unix seconds), if it is open at `now`.
    pub(super) fn domain_open_until(&self, domain: &str, now: u32) -> Option<u32> {
        locked(&self.open_domains).get(domain).copied().filter(|until| *until > now)
    }

    /// Returns true if the breaker of any domain may be open.
    pub(super) fn has_open_domains(&self) -> bool {
        !locked(&self.open_domains).is_empty()
    }

    /// Returns until when the breaker of a delivery is open (Unix seconds), if it is open at `now`.
    pub(super) fn delivery_open_until(&self, id: &DeliveryId, now: u32) -> Option<u32> {
        locked(&self.open_deliveries).get(id).copied().filter(|until| *until > now)
    }

    /// Counts the outcome of a recipient. Opens a breaker if an error rate reaches its bound.
    pub(super) async fn note_outcome(&self, id: &DeliveryId, domain: &str, report: &Report) {
        let Some(status) = report.status.filter(|status| *status != Status::InDoubt) else {
            return;
        };
        let has_failed = matches!(status, Status::Deferred | Status::Failed);
        let reason = FailureReason::from_code(report.reason).filter(|_| has_failed);
        // if the relay or the way to it fails, the recipient domain is not to blame
        let is_deferral = status == Status::Deferred && reason != Some(FailureReason::Unreachable);
        let is_refusal = reason == Some(FailureReason::Refused);
        // greylisting looks like a refusal by policy, but a later attempt gets through
        let is_refused_for_good = is_refusal && status == Status::Failed;
        let now = Instant::now();
        let settings = self.settings.now();
        let domain_bound = bound(&settings, settings.domain_errors_percent);
        let delivery_bound = bound(&settings, settings.delivery_refusals_percent);
        let (domain_share, delivery_share) = {
            let mut rates = locked(&self.error_rates);
            (
                rates.note_domain(domain, is_deferral || is_refusal, domain_bound, now),
                rates.note_delivery(id, is_refused_for_good, delivery_bound, now),
            )
        };
        if let Some(share) = domain_share {
            self.open_domain(domain, share).await;
        }
        if let Some(share) = delivery_share {
            self.open_delivery(id, share).await;
        }
    }

    async fn open_domain(&self, domain: &str, share: f64) {
        let minutes = self.settings.now().domain_pause_minutes;
        let until = pause_end(unix_now(), minutes);
        locked(&self.open_domains).insert(domain.to_owned(), until);
        metrics::breaker_tripped("domain");
        tracing::error!(
            domain,
            errors_percent = (share * 100.0).round(),
            minutes,
            "too many errors: the circuit breaker pauses this domain"
        );
        if let Err(error) = self.store.open_domain_breaker(domain, until).await {
            tracing::debug!(%error, "the other daemons do not know of this circuit breaker");
        }
    }

    async fn open_delivery(&self, id: &DeliveryId, share: f64) {
        let minutes = self.settings.now().delivery_pause_minutes;
        let until = pause_end(unix_now(), minutes);
        locked(&self.open_deliveries).insert(id.clone(), until);
        metrics::breaker_tripped("delivery");
        tracing::error!(
            delivery.id = %id,
            refusals_percent = (share * 100.0).round(),
            minutes,
            "too many refusals: the circuit breaker pauses this delivery"
        );
        if let Err(error) = self.store.open_delivery_breaker(id, until).await {
            tracing::debug!(%error, "the other daemons do not know of this circuit breaker");
        }
    }

    /// Reads the open breakers of all daemons from Redis.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub(super) async fn read_open(&self, now: u32) -> Result<(), StoreError> {
        // if the clock was set back, a breaker must not stay open for longer than its pause
        let settings = self.settings.now();
        let latest = pause_end(now, settings.domain_pause_minutes);
        let open = self.store.open_domain_breakers(now).await?;
        metrics::breakers("domain", open.len());
        *locked(&self.open_domains) =
            open.into_iter().map(|(domain, until)| (domain, until.min(latest))).collect();
        let latest = pause_end(now, settings.delivery_pause_minutes);
        let open = self.store.open_delivery_breakers(now).await?;
        metrics::breakers("delivery", open.len());
        let parsed =
            open.into_iter().filter_map(|(id, until)| Some((id.parse().ok()?, until.min(latest))));
        *locked(&self.open_deliveries) = parsed.collect();
        Ok(())
    }

    /// Forgets the error rates whose window is over.
    pub(super) fn forget_old_rates(&self) {
        locked(&self.error_rates).forget_old(Instant::now(), self.settings.now().window());
    }
}

fn bound(settings: &BreakerSettings, percent: u32) -> ErrorBound {
    ErrorBound {
        minimum: settings.minimum,
        share: f64::from(percent) / 100.0,
        window: settings.window(),
    }
}

/// The end of a pause that begins at `now`, in Unix seconds.
fn pause_end(now: u32, minutes: f64) -> u32 {
    now.saturating_add((minutes * 60.0).ceil() as u32)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
