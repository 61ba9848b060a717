//! Error rates: the share of errors among the recent outcomes of a domain or a delivery.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

use crate::domain::delivery::DeliveryId;

/// The largest number of domains that are counted at a time; the same for deliveries.
const MOST: usize = 100_000;

/// An error rate that reaches this bound opens a circuit breaker.
#[derive(Debug, Clone, Copy)]
pub(super) struct ErrorBound {
    /// The number of outcomes below which the rate says nothing.
    pub minimum: u64,
    /// From 0 to 1. The bound 0 is never reached.
    pub share: f64,
    /// How long outcomes are counted together.
    pub window: Duration,
}

#[derive(Debug)]
struct ErrorRate {
    since: Instant,
    outcomes: u64,
    errors: u64,
}

/// The error rates of the domains and deliveries that this process sends to.
#[derive(Debug, Default)]
pub(super) struct ErrorRates {
    domains: HashMap<String, ErrorRate>,
    deliveries: HashMap<DeliveryId, ErrorRate>,
}

impl ErrorRates {
    /// Notes an outcome of a domain. Returns the share of errors if it reaches the bound.
    pub(super) fn note_domain(
        &mut self,
        domain: &str,
        is_error: bool,
        bound: ErrorBound,
        now: Instant,
    ) -> Option<f64> {
        match self.domains.get_mut(domain) {
            Some(rate) => rate.note(is_error, bound, now),
            None => note_first(&mut self.domains, domain.to_owned(), is_error, bound, now),
        }
    }

    /// Notes an outcome of a delivery. Returns the share of errors if it reaches the bound.
    pub(super) fn note_delivery(
        &mut self,
        id: &DeliveryId,
        is_error: bool,
        bound: ErrorBound,
        now: Instant,
    ) -> Option<f64> {
        match self.deliveries.get_mut(id) {
            Some(rate) => rate.note(is_error, bound, now),
            None => note_first(&mut self.deliveries, id.clone(), is_error, bound, now),
        }
    }

    /// Forgets the rates whose window is over.
    pub(super) fn forget_old(&mut self, now: Instant, window: Duration) {
        let is_current = |rate: &ErrorRate| now.duration_since(rate.since) < window;
        self.domains.retain(|_, rate| is_current(rate));
        self.deliveries.retain(|_, rate| is_current(rate));
    }
}

fn note_first<K: Hash + Eq>(
    rates: &mut HashMap<K, ErrorRate>,
    key: K,
    is_error: bool,
    bound: ErrorBound,
    now: Instant,
) -> Option<f64> {
    if rates.len() >= MOST {
        return None;
    }
    rates.entry(key).or_insert(ErrorRate::begun(now)).note(is_error, bound, now)
}

impl ErrorRate {
    fn begun(now: Instant) -> Self {
        Self { since: now, outcomes: 0, errors: 0 }
    }

    fn note(&mut self, is_error: bool, bound: ErrorBound, now: Instant) -> Option<f64> {
        if now.duration_since(self.since) >= bound.window {
            *self = Self::begun(now);
        }
        self.outcomes += 1;
        self.errors += u64::from(is_error);
        let share = self.errors as f64 / self.outcomes as f64;
        let is_enough = bound.share > 0.0 && self.outcomes >= bound.minimum;
        let is_too_high = is_error && is_enough && share >= bound.share;
        if is_too_high {
            // the outcomes after the pause are counted anew
            *self = Self::begun(now);
        }
        is_too_high.then_some(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: ErrorBound =
        ErrorBound { minimum: 10, share: 0.5, window: Duration::from_secs(60) };

    #[test]
    fn a_breaker_needs_a_share_over_a_minimum_within_its_window() {
        let (mut rates, start) = (ErrorRates::default(), Instant::now());
        let mut note = |error, second| {
            rates.note_domain("a.example", error, BOUND, start + Duration::from_secs(second))
        };
        for _ in 0..9 {
            assert_eq!(note(true, 0), None, "below the minimum");
        }
        assert_eq!(note(true, 1), Some(1.0));
        for _ in 0..9 {
            assert_eq!(note(true, 2), None, "counted anew");
        }
        // the window is over: earlier outcomes do not count
        assert_eq!(note(true, 63), None);
        for n in 0..30 {
            assert_eq!(note(n % 3 == 0, 64), None, "below the share");
        }
    }

    #[test]
    fn a_bound_of_zero_is_never_reached() {
        let mut rates = ErrorRates::default();
        let id = DeliveryId::from_random([1; 10]);
        let never = ErrorBound { share: 0.0, ..BOUND };
        assert!((0..100).all(|_| rates.note_delivery(&id, true, never, Instant::now()).is_none()));
        rates.forget_old(Instant::now() + Duration::from_secs(61), Duration::from_secs(60));
        assert!(rates.deliveries.is_empty());
    }
}
