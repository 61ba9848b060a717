//! TODO head

use std::sync::{Arc, atomic::AtomicBool};

/// What this process knows of Redis. Cheap to clone.
#[derive(Clone)]
pub struct RedisState {
    pub writable: Arc<AtomicBool>,
}

impl Default for RedisState {
    fn default() -> Self {
        Self { writable: Arc::new(true.into()) }
    }
}
