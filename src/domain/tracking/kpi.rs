//! Key figures: a pure function of the counts. Ratios are 0..1, and null where the denominator is 0.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::statistics::Statistics;
use crate::domain::ledger::Counts;

/// The KPIs of a delivery. Opens and clicks are those of the last statistics, and `None` before the first: unknown is not zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kpis {
    /// SMTP test mode: nothing was delivered, whatever the counts say; so nothing is processed, and all rates are null.
    pub test: bool,
    pub targeted: u64,
    pub to_deliver: u64,
    /// "Sent" on pages: delivered + bounces and errors.
    pub processed: u64,
    pub delivered: u64,
    pub bounces_and_errors: u64,
    pub delivered_rate: Option<f64>,
    pub bounce_and_error_rate: Option<f64>,
    pub hard_bounce_rate: Option<f64>,
    pub soft_bounce_rate: Option<f64>,
    /// Shown beside the rates; in none of them.
    pub in_doubt: u64,
    pub unique_opens: Option<u64>,
    pub open_rate: Option<f64>,
    pub unique_clicks: Option<u64>,
    pub click_through_rate: Option<f64>,
    pub unsubscribe_rate: Option<f64>,
    /// When opens and clicks were counted.
    pub statistics_at: Option<Timestamp>,
}

/// `count / of`, or `None` when `of` is 0.
pub fn rate(count: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| count as f64 / of as f64)
}

impl Kpis {
    /// `excluded_at_preparation` are the lines of the exclusion log that never came into a ledger.
    pub fn of(
        counts: &Counts,
        excluded_at_preparation: u64,
        test: bool,
        opens: Option<&Statistics>,
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
            unique_opens: opens.and_then(|s| s.unique_opens),
            open_rate: opens.and_then(|s| s.open_rate),
            unique_clicks: opens.and_then(|s| s.unique_clicks),
            click_through_rate: opens.and_then(|s| s.click_through_rate),
            unsubscribe_rate: opens.and_then(|s| s.unsubscribe_rate),
            statistics_at: opens.map(|s| s.computed_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settled_recipients_are_in_a_rate() {
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
