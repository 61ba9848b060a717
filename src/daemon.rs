//! The running process: its name in leases, its tasks, its signs of life, and the signal to end.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The identity and the end of this process. Cheap to clone.
#[derive(Clone)]
pub struct Daemon {
    /// The name of this process in every lease that it takes.
    pub owner: u64,
    /// The owners of earlier processes with this state directory. They are dead, so their leases
    /// can be taken over at once.
    pub dead_owners: Arc<[u64]>,
    /// Every task that must end before the process ends.
    pub tracker: TaskTracker,
    /// Cancelled when the daemon must end: from then on nothing new is begun.
    pub shutdown: CancellationToken,
}

/// When something last moved. Cheap to clone; all clones share it.
#[derive(Debug, Clone)]
pub struct LifeSign(Arc<Mutex<Instant>>);

impl Default for LifeSign {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl LifeSign {
    /// Notes that it moves now.
    pub fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long ago it moved.
    pub fn age(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}
