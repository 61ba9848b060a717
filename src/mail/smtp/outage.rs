//! The outage of a relay: it ends when no fault came for a while and the relay can be used.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// An outage is over once there was no fault for so long, and the relay takes connections or mail.
/// Faults that come again and again are one outage.
const QUIET: Duration = Duration::from_secs(10);

/// The outage of one relay, if there is one.
#[derive(Default)]
pub(super) struct RelayOutage(Mutex<Option<Outage>>);

struct Outage {
    began: Instant,
    last_fault: Instant,
    faults: u64,
}

impl RelayOutage {
    /// Counts a fault. Returns whether it begins an outage.
    pub(super) fn note(&self, now: Instant) -> bool {
        let mut outage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = outage.is_none();
        let outage = outage.get_or_insert(Outage { began: now, last_fault: now, faults: 0 });
        outage.last_fault = now;
        outage.faults += 1;
        begins
    }

    /// When the outage may be over at the earliest. `None` if there is none.
    pub(super) fn quiet_at(&self) -> Option<Instant> {
        let outage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        outage.as_ref().map(|outage| outage.last_fault + QUIET)
    }

    /// Ends the outage: its number of faults, and how long it took up to the last of them.
    pub(super) fn end(&self) -> Option<(u64, Duration)> {
        let mut outage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        outage.take().map(|outage| (outage.faults, outage.last_fault - outage.began))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_that_come_again_are_one_outage() {
        let (outage, began) = (RelayOutage::default(), Instant::now());
        assert_eq!((outage.note(began), outage.note(began)), (true, false));
        assert!(!outage.note(began + QUIET / 2));
        assert_eq!(outage.quiet_at(), Some(began + QUIET / 2 + QUIET));
        assert_eq!(outage.end(), Some((3, QUIET / 2)));
        assert!(outage.note(began + QUIET), "the next fault begins another outage");
    }
}
