//! The limits of recipient domains, and this daemon's share of them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::{config::DomainLimit, domain::audience::address_mask};

/// One limit with its use by this daemon.
///
/// The counters outlive a reload: what is in flight counts under the new limit of the same name.
struct LimitInUse {
    settings: DomainLimit,
    /// Recipients that are claimed and not recorded.
    in_flight: Arc<AtomicUsize>,
    /// How far `in_flight` may rise on this daemon: its share of the limit.
    share: Arc<AtomicUsize>,
}

/// The limits of recipient domains, in the order of the settings. A limit is named by its index.
pub(super) struct DomainLimits(Vec<LimitInUse>);

impl DomainLimits {
    /// Begins with shares of 0: nobody under a limit of `connections` is sent to before the first
    /// share is known.
    pub(super) fn new(limits: &[DomainLimit]) -> Self {
        let unused = |settings: &DomainLimit| LimitInUse {
            settings: settings.clone(),
            in_flight: Arc::default(),
            share: Arc::default(),
        };
        Self(limits.iter().map(unused).collect())
    }

    /// The limits of a reload, with what is in flight under the present ones.
    pub(super) fn changed_to(&self, limits: &[DomainLimit]) -> Self {
        let carried = |settings: &DomainLimit| {
            let known = self.0.iter().find(|limit| limit.settings.name == settings.name);
            LimitInUse {
                settings: settings.clone(),
                in_flight: known.map(|limit| limit.in_flight.clone()).unwrap_or_default(),
                share: known.map(|limit| limit.share.clone()).unwrap_or_default(),
            }
        };
        Self(limits.iter().map(carried).collect())
    }

    /// Returns the first limit that applies to this domain.
    pub(super) fn for_domain(&self, domain: &str) -> Option<usize> {
        let applies = |limit: &LimitInUse| {
            limit.settings.domains.iter().any(|mask| address_mask::matches(mask, domain))
        };
        self.0.iter().position(applies)
    }

    /// Returns the token bucket of a limit and its rate in messages per second, if it has a rate.
    pub(super) fn rate(&self, limit: usize) -> Option<(String, f64)> {
        let settings = &self.0[limit].settings;
        let rate = settings.messages_per_second;
        (rate > 0.0).then(|| (format!("domain:{}", settings.name), rate))
    }

    /// Counts one more recipient of a limit. Returns false if the share is used up.
    pub(super) fn enter(&self, limit: usize) -> bool {
        let LimitInUse { settings, in_flight, share } = &self.0[limit];
        if settings.connections == 0 {
            return true;
        }
        let share = share.load(Ordering::Relaxed);
        let one_more = |n| (n < share).then_some(n + 1);
        in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// Takes one recipient off the count of a limit.
    pub(super) fn leave(&self, limit: usize) {
        let LimitInUse { settings, in_flight, .. } = &self.0[limit];
        if settings.connections > 0 {
            in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Sets this daemon's shares: `share` computes each from the whole limit.
    pub(super) fn set_shares(&self, share: impl Fn(usize) -> usize) {
        for limit in &self.0 {
            limit.share.store(share(limit.settings.connections), Ordering::Relaxed);
        }
    }
}
