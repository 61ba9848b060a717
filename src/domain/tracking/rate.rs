//! Rates: the one rule for a ratio of two counts.

/// `count / of`, or `None` if `of` is 0.
pub fn rate(count: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| count as f64 / of as f64)
}
