//! What this process knows of the state of Redis.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// What this process knows of the state of Redis. Cheap to clone.
#[derive(Clone)]
pub struct RedisState {
    /// True while Redis takes writes.
    pub writable: Arc<AtomicBool>,
}

impl Default for RedisState {
    fn default() -> Self {
        Self { writable: Arc::new(true.into()) }
    }
}

impl RedisState {
    pub(super) fn is_writable(&self) -> bool {
        self.writable.load(Ordering::Relaxed)
    }

    /// Notes whether Redis takes writes. Returns what was known before.
    pub(super) fn set_writable(&self, writable: bool) -> bool {
        self.writable.swap(writable, Ordering::Relaxed)
    }
}
