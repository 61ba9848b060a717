//! The time limit of a lease, as its holder measures it.
//!
//! The holder's limit always ends before another daemon may take the lease over.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since boot. This clock also runs while the machine is suspended. Nobody can set it.
pub(super) fn boottime_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1000
        + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

/// The time until which the holder may start transactions.
///
/// A successor waits `lease_ms` after it has seen a beat. The holder counts from the moment before
/// it sent that beat. The holder's limit therefore ends first.
#[derive(Debug)]
pub(super) struct LeaseValidity {
    lease_ms: u64,
    until_ms: AtomicU64,
}

impl LeaseValidity {
    /// Begins with a lease that was granted. The request for it was sent at `asked_ms`.
    pub(super) fn new(lease_ms: u64, asked_ms: u64) -> Self {
        Self { lease_ms, until_ms: AtomicU64::new(asked_ms + lease_ms) }
    }

    /// Extends the limit: Redis has acknowledged a beat that was sent at `sent_ms`.
    pub(super) fn renew(&self, sent_ms: u64) {
        self.until_ms.fetch_max(sent_ms + self.lease_ms, Ordering::Relaxed);
    }

    /// Ends the limit now: the holder has lost its chunk.
    pub(super) fn end(&self) {
        self.until_ms.store(0, Ordering::Relaxed);
    }

    /// Returns true if the limit is not reached at `now_ms`.
    pub(super) fn holds(&self, now_ms: u64) -> bool {
        now_ms < self.until_ms.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewal_extends_a_lease_and_an_older_one_does_not_shorten_it() {
        let validity = LeaseValidity::new(1000, 5000);
        assert!(validity.holds(5999) && !validity.holds(6000));
        validity.renew(5500);
        assert!(validity.holds(6499) && !validity.holds(6500));
        validity.renew(5200);
        assert!(validity.holds(6499));
        validity.end();
        assert!(!validity.holds(5000));
    }
}
