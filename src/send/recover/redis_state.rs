//! The state of Redis as this process knows it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// The state of Redis as this process knows it. Cheap to clone.
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
    /// Notes whether Redis takes writes.
    pub(super) fn set_writable(&self, writable: bool) {
        self.writable.store(writable, Ordering::Relaxed);
    }
}
