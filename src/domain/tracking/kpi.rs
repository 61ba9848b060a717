//! KPIs: the key figures of a delivery, a pure function of its counts and its statistics.
//!
//! A rate is 0 to 1, and null if its denominator is 0.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{rate::rate, statistics::Statistics};
use crate::domain::ledger::Counts;

/// The KPIs of a delivery. Opens and clicks are from the last statistics. Before the first
/// statistics they are `None`, because unknown is not zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kpis {
    /// SMTP test mode: nothing is delivered, so nothing counts as processed and all rates are null.
    pub test: bool,
    /// All recipients of the audience.
    pub targeted: u64,
    /// The targeted recipients that are not excluded.
    pub to_deliver: u64,
    /// Delivered, plus bounces and errors.
    pub processed: u64,
    pub delivered: u64,
    pub bounces_and_errors: u64,
    pub delivered_rate: Option<f64>,
    pub bounce_and_error_rate: Option<f64>,
    pub hard_bounce_rate: Option<f64>,
    pub soft_bounce_rate: Option<f64>,
    /// Not part of any rate.
    pub in_doubt: u64,
    pub unique_opens: Option<u64>,
    pub open_rate: Option<f64>,
    pub unique_clicks: Option<u64>,
    pub click_through_rate: Option<f64>,
    pub unsubscribe_rate: Option<f64>,
    /// When opens and clicks were computed.
    pub statistics_at: Option<Timestamp>,
}

impl Kpis {
    /// The KPIs for `counts`, which are a recount or the live counters.
    ///
    /// `excluded_at_preparation`: lines of the exclusion log whose recipients are in no ledger.
    /// `test`: SMTP test mode.
    pub fn of(
        counts: &Counts,
        excluded_at_preparation: u64,
        test: bool,
        statistics: Option<&Statistics>,
    ) -> Self {
        let (delivered, failed, hard) =
            if test { (0, 0, 0) } else { (counts.sent, counts.failed, counts.hard) };
        let processed = delivered + failed;
        Self {
            test,
            targeted: counts.total() + excluded_at_preparation,
            to_deliver: counts.total() - counts.excluded,
            processed,
            delivered,
            bounces_and_errors: failed,
            delivered_rate: rate(delivered, processed),
            bounce_and_error_rate: rate(failed, processed),
            hard_bounce_rate: rate(hard, processed),
            soft_bounce_rate: rate(failed.saturating_sub(hard), processed),
            in_doubt: counts.in_doubt,
            unique_opens: statistics.and_then(|s| s.unique_opens),
            open_rate: statistics.and_then(|s| s.open_rate),
            unique_clicks: statistics.and_then(|s| s.unique_clicks),
            click_through_rate: statistics.and_then(|s| s.click_through_rate),
            unsubscribe_rate: statistics.and_then(|s| s.unsubscribe_rate),
            statistics_at: statistics.map(|s| s.computed_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_processed_recipients_are_in_a_rate() {
        let counts = Counts {
            pending: 5,
            deferred: 2,
            sent: 90,
            failed: 10,
            hard: 4,
            in_doubt: 3,
            excluded: 1,
            ..Counts::default()
        };
        let kpis = Kpis::of(&counts, 7, false, None);
        assert_eq!((kpis.targeted, kpis.to_deliver, kpis.processed), (118, 110, 100));
        assert_eq!((kpis.delivered_rate, kpis.bounce_and_error_rate), (Some(0.9), Some(0.1)));
        assert_eq!((kpis.hard_bounce_rate, kpis.soft_bounce_rate), (Some(0.04), Some(0.06)));
    }

    #[test]
    fn a_test_has_delivered_nothing() {
        let kpis =
            Kpis::of(&Counts { sent: 90, failed: 10, hard: 4, ..Counts::default() }, 7, true, None);
        assert_eq!((kpis.test, kpis.targeted, kpis.to_deliver), (true, 107, 100));
        assert_eq!((kpis.processed, kpis.delivered, kpis.bounces_and_errors), (0, 0, 0));
        assert_eq!(
            (kpis.delivered_rate, kpis.bounce_and_error_rate, kpis.hard_bounce_rate),
            (None, None, None)
        );
    }

    #[test]
    fn without_anything_processed_rates_are_null() {
        let kpis = Kpis::of(&Counts { pending: 3, ..Counts::default() }, 0, false, None);
        assert_eq!(
            (kpis.delivered_rate, kpis.bounce_and_error_rate, kpis.open_rate),
            (None, None, None)
        );
    }
}
