//! TODO head

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{
    connection_permits::ConnectionPermits,
    throttles::{LeasedTokens, SETTLED, Throttles, locked},
};
use crate::{
    clock::unix_now, config::Config, daemon::Daemon, mail::smtp::Relays, metrics, store::StoreError,
};

#[derive(Clone)]
pub struct ThrottleWatch {
    pub throttles: Throttles,
    pub relays: Relays,
    pub permits: ConnectionPermits,
    pub config: Arc<Config>,
    pub daemon: Daemon,
}

impl ThrottleWatch {
    /// The task: what the other daemons have found, and this one's share.
    pub async fn observe(&self) -> bool {
        let looked = self.look().await;
        if let Err(error) = &looked {
            tracing::debug!(%error, "the throttles cannot be looked at");
        }
        looked.is_ok()
    }

    async fn look(&self) -> Result<(), StoreError> {
        let shared = &self.throttles.state;
        let (attendance, now) =
            (self.throttles.store.announce_daemon(self.daemon.owner).await?, unix_now());
        let n = attendance.daemons.max(1);
        // alone there is nobody to make room
        let settled = n == 1 || attendance.present_for >= SETTLED;
        let mine = |all: usize| {
            if settled { all / n + usize::from(attendance.rank < all % n) } else { 0 }
        };
        for (limit, share) in shared.limits.iter().zip(&shared.shares) {
            share.store(mine(limit.connections), Ordering::Relaxed);
        }
        for ((_, settings), relay) in self.config.relays().into_iter().zip(self.relays.all()) {
            if settings.total_connections > 0 {
                relay.allow(mine(settings.total_connections).min(settings.connections));
            }
        }
        self.permits.allow(|route| self.relays.allowed(route));
        // a clock that was set back must not keep them open for longer
        let most = |minutes: f64| now.saturating_add((minutes * 60.0).ceil() as u32);
        let domains_until = most(shared.breaker.domain_pause_minutes);
        let deliveries_until = most(shared.breaker.delivery_pause_minutes);
        let broken = self.throttles.store.open_domain_breakers(now).await?;
        metrics::breakers("domain", broken.len());
        *locked(&shared.broken) =
            broken.into_iter().map(|(domain, until)| (domain, until.min(domains_until))).collect();
        let broken = self.throttles.store.open_delivery_breakers(now).await?;
        metrics::breakers("delivery", broken.len());
        let parsed = broken
            .into_iter()
            .filter_map(|(id, until)| Some((id.parse().ok()?, until.min(deliveries_until))));
        *locked(&shared.broken_deliveries) = parsed.collect();
        locked(&shared.tallies).tidy(Instant::now(), shared.breaker.window());
        let now = Instant::now();
        let in_use = |bucket: &LeasedTokens| bucket.leased_until.is_some_and(|until| until > now);
        locked(&shared.buckets).retain(|_, bucket| {
            Arc::strong_count(bucket) > 1 || bucket.try_lock().is_ok_and(|b| in_use(&b))
        });
        Ok(())
    }
}
