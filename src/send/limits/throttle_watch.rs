//! The throttle watch: learns what the other daemons found, and takes this daemon's share.

use std::{sync::Arc, time::Duration};

use super::{connection_permits::ConnectionPermits, throttles::Throttles};
use crate::{
    clock::unix_now,
    config::Config,
    daemon::Daemon,
    mail::smtp::Relays,
    store::{StoreError, limits::LimitStore},
};

/// A new daemon takes its share after this time. By then the other daemons know of it and have made
/// room.
const SETTLED: Duration = Duration::from_secs(3);

/// Keeps the throttles of this daemon in step with the other daemons.
#[derive(Clone)]
pub struct ThrottleWatch {
    pub throttles: Throttles,
    pub store: LimitStore,
    pub relays: Relays,
    pub permits: ConnectionPermits,
    pub config: Arc<Config>,
    pub daemon: Daemon,
}

impl ThrottleWatch {
    /// The task: updates shares and circuit breakers. Returns false if Redis does not answer.
    pub async fn observe(&self) -> bool {
        let updated = self.update().await;
        if let Err(error) = &updated {
            tracing::debug!(%error, "the throttles cannot be updated");
        }
        updated.is_ok()
    }

    async fn update(&self) -> Result<(), StoreError> {
        let presence = self.store.announce_daemon(self.daemon.owner).await?;
        let now = unix_now();
        let daemons = presence.daemons.max(1);
        // a single daemon need not wait until others have made room
        let is_settled = daemons == 1 || presence.present_for >= SETTLED;
        self.take_shares(&|all| match is_settled {
            true => all / daemons + usize::from(presence.rank < all % daemons),
            false => 0,
        });
        self.throttles.breakers.read_open(now).await?;
        self.throttles.breakers.forget_old_rates();
        self.throttles.buckets.forget_unused();
        Ok(())
    }

    /// Sets this daemon's part of each limit and of the connections of each relay.
    fn take_shares(&self, share: &impl Fn(usize) -> usize) {
        self.throttles.limits.now().set_shares(share);
        for ((_, settings), relay) in self.config.relays().into_iter().zip(self.relays.all()) {
            if settings.total_connections > 0 {
                relay.allow(share(settings.total_connections).min(settings.connections));
            }
        }
        self.permits.allow(|route| self.relays.allowed(route));
    }
}
