//! Counts: how many recipients of a delivery have each status.

use serde::{Deserialize, Serialize};

use super::format::{Ledger, Status, flags};

/// How many recipients have each status, and how many of them were sent to twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    pub pending: u64,
    pub attempting: u64,
    pub deferred: u64,
    pub sent: u64,
    pub failed: u64,
    pub in_doubt: u64,
    pub cancelled: u64,
    pub excluded: u64,
    /// Recipients that were sent to again although an earlier attempt was in doubt.
    pub resent: u64,
    /// Recipients whose message the relay accepted, or may have accepted, more than once.
    pub duplicates: u64,
    /// Hard failures among `failed`.
    pub hard: u64,
}

impl Counts {
    /// The counter of `status`.
    pub fn of(&mut self, status: Status) -> &mut u64 {
        match status {
            Status::Pending => &mut self.pending,
            Status::Attempting => &mut self.attempting,
            Status::Deferred => &mut self.deferred,
            Status::Sent => &mut self.sent,
            Status::Failed => &mut self.failed,
            Status::InDoubt => &mut self.in_doubt,
            Status::Cancelled => &mut self.cancelled,
            Status::Excluded => &mut self.excluded,
        }
    }

    /// Adds every record of a ledger.
    pub fn add(&mut self, ledger: &Ledger) {
        for r in ledger.records() {
            *self.of(r.status) += 1;
            self.resent += u64::from(r.has(flags::RESENT));
            self.duplicates += u64::from(r.has(flags::DUPLICATE));
            self.hard += u64::from(r.status == Status::Failed && r.has(flags::HARD));
        }
    }

    /// Recipients that are pending, attempting or deferred.
    pub fn open(&self) -> u64 {
        self.pending + self.attempting + self.deferred
    }

    /// All recipients.
    pub fn total(&self) -> u64 {
        self.open() + self.sent + self.failed + self.in_doubt + self.cancelled + self.excluded
    }

    /// The largest difference between a figure here and the same figure of `other`.
    pub fn largest_difference(&self, other: &Self) -> u64 {
        self.figures().iter().zip(other.figures()).map(|(a, b)| a.abs_diff(b)).max().unwrap_or(0)
    }

    fn figures(&self) -> [u64; 11] {
        [
            self.pending,
            self.attempting,
            self.deferred,
            self.sent,
            self.failed,
            self.in_doubt,
            self.cancelled,
            self.excluded,
            self.resent,
            self.duplicates,
            self.hard,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_counted_once() {
        let mut counts = Counts::default();
        counts.add(&Ledger::new(500));
        counts.add(&Ledger::new(7));
        assert_eq!((counts.pending, counts.total(), counts.open()), (507, 507, 507));
        assert_eq!(counts.largest_difference(&Counts { pending: 500, sent: 5, ..counts }), 7);
    }
}
