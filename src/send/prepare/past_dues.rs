//! Finds due instants that lie before the beginning of the preparation; each is one error.

use std::collections::HashSet;

use super::findings::Findings;
use crate::{
    clock::unix_now,
    domain::{
        instant,
        schedule::{Schedule, clock_change_warning},
    },
};

/// The due instants that were found to be in the past.
pub(super) struct PastDues {
    /// Beginning of the preparation, Unix seconds.
    began: u32,
    reported: HashSet<u32>,
}

impl PastDues {
    /// The preparation begins now.
    pub(super) fn new() -> Self {
        Self { began: unix_now(), reported: HashSet::new() }
    }

    /// Checks the instants that the schedule itself names, and warns of changes of the clock.
    pub(super) fn check_schedule(&mut self, schedule: &Schedule, findings: &mut Findings) {
        for (field, due) in schedule.fixed() {
            if due <= self.began {
                findings.error(&field, None, "is in the past");
                self.reported.insert(due);
            }
        }
        for (field, at, zone) in schedule.local_times() {
            if let Some(warning) = clock_change_warning(at, zone) {
                findings.warn(&field, warning);
            }
        }
    }

    /// Checks the due instant of one recipient; 0 is at once. Reports one error for each wave.
    pub(super) fn check(&mut self, due: u32, line: u64, findings: &mut Findings) {
        if due > 0 && due <= self.began && self.reported.insert(due) {
            findings.error("schedule", Some(line), format!("{} is in the past", instant(due)));
        }
    }
}
