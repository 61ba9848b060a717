//! Throttles: the limits that all daemons share, as one daemon knows them.

use std::{sync::Arc, time::Duration};

use super::{
    circuit_breakers::CircuitBreakers, domain_limits::DomainLimits, token_buckets::TokenBuckets,
};
use crate::{config::Config, domain::delivery::DeliveryId, live::Live, store::limits::LimitStore};

/// How often a message that waits for a token checks whether it may still start.
const START_CHECK: Duration = Duration::from_millis(100);

/// The throttles of one process. Cheap to clone.
#[derive(Clone)]
pub struct Throttles {
    pub(super) buckets: Arc<TokenBuckets>,
    pub(super) limits: Live<DomainLimits>,
    pub(super) breakers: Arc<CircuitBreakers>,
}

impl Throttles {
    /// Begins with the limits of the settings.
    pub fn new(config: &Config, store: LimitStore) -> Self {
        Self {
            buckets: Arc::new(TokenBuckets::new(store.clone())),
            limits: Live::new(DomainLimits::new(&config.throttle.domains)),
            breakers: Arc::new(CircuitBreakers::new(config.breaker.clone(), store)),
        }
    }

    /// Takes the limits of a reload. Chunks that are being sent end under the limits they began
    /// with, and their recipients count under the new ones.
    pub fn reload(&self, config: &Config) {
        self.limits.set(self.limits.now().changed_to(&config.throttle.domains));
        self.breakers.settings.set(config.breaker.clone());
    }

    /// Waits for a token of a relay's rate limit, as long as `may_start` returns true.
    ///
    /// `rate` is in messages per second.
    pub async fn wait_for_relay(
        &self,
        relay: &str,
        rate: f64,
        may_start: &(dyn Fn() -> bool + Sync),
    ) {
        while may_start() {
            match self.buckets.take(&format!("relay:{relay}"), rate, 1).await {
                Ok(_) => return,
                Err(wait) => tokio::time::sleep(wait.min(START_CHECK)).await,
            }
        }
    }

    /// Returns until when the breaker of a delivery is open (Unix seconds), if it is open at `now`.
    pub fn delivery_breaker(&self, id: &DeliveryId, now: u32) -> Option<u32> {
        self.breakers.delivery_open_until(id, now)
    }
}
