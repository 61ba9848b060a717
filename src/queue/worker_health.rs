//! Which workers live, for `/readyz` and the metrics.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::enqueue::{QUEUES, QueueName, locked};

/// Shared by the workers that report and those who ask.
#[derive(Debug, Clone, Default)]
pub struct WorkerHealth {
    workers: Arc<Mutex<[Option<Entry>; QUEUES]>>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Its last heartbeat that Redis answered; none while it is being restarted.
    beat: Option<Instant>,
    /// A heartbeat older than this counts as none.
    patience: Duration,
    restarts: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerState {
    pub queue: QueueName,
    pub alive: bool,
    /// How often it ended and was started again.
    pub restarts: u64,
}

impl WorkerHealth {
    /// The workers that were started in this process.
    pub fn states(&self) -> Vec<WorkerState> {
        let workers = *locked(&self.workers);
        QueueName::ALL
            .into_iter()
            .filter_map(|queue| {
                workers[queue.index()].map(|entry| WorkerState {
                    queue,
                    alive: entry.beat.is_some_and(|beat| beat.elapsed() < entry.patience),
                    restarts: entry.restarts,
                })
            })
            .collect()
    }

    /// Whether there are workers and all of them live.
    pub fn ready(&self) -> bool {
        let states = self.states();
        !states.is_empty() && states.iter().all(|state| state.alive)
    }

    pub(super) fn expect(&self, queue: QueueName, patience: Duration) {
        locked(&self.workers)[queue.index()] = Some(Entry { beat: None, patience, restarts: 0 });
    }

    pub(super) fn beat(&self, queue: QueueName) {
        if let Some(entry) = &mut locked(&self.workers)[queue.index()] {
            entry.beat = Some(Instant::now());
        }
    }

    pub(super) fn ended(&self, queue: QueueName) {
        if let Some(entry) = &mut locked(&self.workers)[queue.index()] {
            entry.beat = None;
        }
    }

    pub(super) fn restarted(&self, queue: QueueName) {
        if let Some(entry) = &mut locked(&self.workers)[queue.index()] {
            entry.restarts += 1;
        }
    }
}
