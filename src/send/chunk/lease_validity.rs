//! The holder's own view of its lease: valid only for as long as nobody else can have waited it out.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds of a clock that goes on while the machine is suspended and that nobody sets.
pub fn boottime_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1000
        + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Until when transactions may be started. A successor waits `lease_ms` after it has seen a beat; the holder counts from
/// before it sent that beat, so its lease ends first.
#[derive(Debug)]
pub struct LeaseValidity {
    lease_ms: u64,
    until_ms: AtomicU64,
}

impl LeaseValidity {
    /// A lease that was asked for at `asked_ms` and granted.
    pub fn new(lease_ms: u64, asked_ms: u64) -> Self {
        Self { lease_ms, until_ms: AtomicU64::new(asked_ms + lease_ms) }
    }

    /// A beat that was sent at `sent_ms` was acknowledged.
    pub fn renew(&self, sent_ms: u64) {
        self.until_ms.fetch_max(sent_ms + self.lease_ms, Ordering::Relaxed);
    }

    /// Somebody else holds the chunk.
    pub fn end(&self) {
        self.until_ms.store(0, Ordering::Relaxed);
    }

    pub fn holds(&self, now_ms: u64) -> bool {
        now_ms < self.until_ms.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_unless_it_is_renewed_and_never_comes_back_earlier() {
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
