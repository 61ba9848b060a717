//! Tallies: how many of the last outcomes of a domain or a delivery were errors.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

use crate::domain::delivery::DeliveryId;

/// More domains than this are not watched at a time.
const MOST: usize = 100_000;

/// When a share of errors is too high.
#[derive(Debug, Clone, Copy)]
pub struct ErrorBound {
    /// Outcomes before anything is concluded.
    pub minimum: u64,
    /// 0 to 1; 0 is never.
    pub share: f64,
    pub window: Duration,
}

#[derive(Debug)]
struct ErrorRate {
    since: Instant,
    outcomes: u64,
    errors: u64,
}

/// The outcomes that this process has seen.
#[derive(Debug, Default)]
pub struct ErrorRates {
    domains: HashMap<String, ErrorRate>,
    deliveries: HashMap<DeliveryId, ErrorRate>,
}

impl ErrorRates {
    /// Notes an outcome; the share of errors if that is too high now.
    pub fn domain(
        &mut self,
        domain: &str,
        error: bool,
        bound: ErrorBound,
        now: Instant,
    ) -> Option<f64> {
        match self.domains.get_mut(domain) {
            Some(tally) => tally.note(error, bound, now),
            None => note(&mut self.domains, domain.to_owned(), error, bound, now),
        }
    }

    /// Notes an outcome; the share of errors if that is too high now.
    pub fn delivery(
        &mut self,
        id: &DeliveryId,
        error: bool,
        bound: ErrorBound,
        now: Instant,
    ) -> Option<f64> {
        match self.deliveries.get_mut(id) {
            Some(tally) => tally.note(error, bound, now),
            None => note(&mut self.deliveries, id.clone(), error, bound, now),
        }
    }

    /// Forgets what is over.
    pub fn tidy(&mut self, now: Instant, window: Duration) {
        let current = |tally: &ErrorRate| now.duration_since(tally.since) < window;
        self.domains.retain(|_, tally| current(tally));
        self.deliveries.retain(|_, tally| current(tally));
    }
}

fn note<K: Hash + Eq>(
    tallies: &mut HashMap<K, ErrorRate>,
    key: K,
    error: bool,
    bound: ErrorBound,
    now: Instant,
) -> Option<f64> {
    if tallies.len() >= MOST {
        return None;
    }
    tallies
        .entry(key)
        .or_insert(ErrorRate { since: now, outcomes: 0, errors: 0 })
        .note(error, bound, now)
}

impl ErrorRate {
    fn note(&mut self, error: bool, bound: ErrorBound, now: Instant) -> Option<f64> {
        if now.duration_since(self.since) >= bound.window {
            *self = Self { since: now, outcomes: 0, errors: 0 };
        }
        self.outcomes += 1;
        self.errors += u64::from(error);
        let share = self.errors as f64 / self.outcomes as f64;
        let too_high =
            error && bound.share > 0.0 && self.outcomes >= bound.minimum && share >= bound.share;
        if too_high {
            // after the pause it is begun anew
            *self = Self { since: now, outcomes: 0, errors: 0 };
        }
        too_high.then_some(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: ErrorBound =
        ErrorBound { minimum: 10, share: 0.5, window: Duration::from_secs(60) };

    #[test]
    fn a_breaker_needs_a_share_over_a_minimum_within_its_window() {
        let (mut tallies, start) = (ErrorRates::default(), Instant::now());
        let mut note = |error, second| {
            tallies.domain("a.example", error, BOUND, start + Duration::from_secs(second))
        };
        for _ in 0..9 {
            assert_eq!(note(true, 0), None, "below the minimum");
        }
        assert_eq!(note(true, 1), Some(1.0));
        for _ in 0..9 {
            assert_eq!(note(true, 2), None, "begun anew");
        }
        // the window is over: what was before does not count
        assert_eq!(note(true, 63), None);
        for n in 0..30 {
            assert_eq!(note(n % 3 == 0, 64), None, "below the share");
        }
    }

    #[test]
    fn zero_is_never() {
        let mut tallies = ErrorRates::default();
        let id = DeliveryId::from_random([1; 10]);
        let never = ErrorBound { share: 0.0, ..BOUND };
        assert!((0..100).all(|_| tallies.delivery(&id, true, never, Instant::now()).is_none()));
        tallies.tidy(Instant::now() + Duration::from_secs(61), Duration::from_secs(60));
        assert!(tallies.deliveries.is_empty());
    }
}
