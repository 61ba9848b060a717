//! Counts the reports that took effect.

use crate::{
    domain::ledger::{Status, flags},
    metrics,
    store::chunks::{Report, ReportEffect},
};

/// Counts a report in the metrics, if it changed its record.
pub(super) fn count_record(report: &Report, effect: ReportEffect) {
    if matches!(effect, ReportEffect::Applied | ReportEffect::Twice) {
        metrics::recorded(report.status.map_or("given_back", Status::word));
        if report.status == Some(Status::Failed) {
            metrics::failure(report.flags & flags::HARD != 0);
        }
    }
}
