//! Whether a template is quick enough to be rendered beside other tasks.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// A message that takes longer is slow.
const SLOW: Duration = Duration::from_millis(1);
/// How many quick messages must follow a slow one until the template counts as quick again.
const PATIENCE: u32 = 48;

/// The pace of a template, from its messages so far.
#[derive(Debug)]
pub struct TemplatePace {
    /// No part of the template can take long.
    is_simple: bool,
    /// How many quick messages are missing until the template counts as quick.
    missing: AtomicU32,
}

impl TemplatePace {
    /// The pace before the first message.
    pub fn new(is_simple: bool) -> Self {
        Self { is_simple, missing: AtomicU32::new(PATIENCE) }
    }

    /// Whether a message may take long: one did, or too few were measured.
    ///
    /// `None` if no message of the template can take long: no measurement is needed.
    pub fn may_be_slow(&self) -> Option<bool> {
        (!self.is_simple).then(|| self.missing.load(Ordering::Relaxed) > 0)
    }

    /// Does the work of one message, and measures it.
    pub fn measure<T>(&self, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = work();
        let missing = self.missing.load(Ordering::Relaxed);
        if began.elapsed() > SLOW {
            self.missing.store(PATIENCE, Ordering::Relaxed);
        } else if missing > 0 {
            // Another thread may overwrite the number. The template then counts as quick a little
            // too early or too late.
            self.missing.store(missing - 1, Ordering::Relaxed);
        }
        result
    }
}
