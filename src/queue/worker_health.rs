//! Which queue workers of this process live, for `/readyz` and the metrics.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::{
    lock::locked,
    queue_name::{QUEUES, QueueName},
};

/// The health of the workers of this process. The clones share it.
#[derive(Debug, Clone, Default)]
pub struct WorkerHealth {
    workers: Arc<Mutex<[Option<Entry>; QUEUES]>>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The last heartbeat that Redis answered; none until the first one after each start.
    beat: Option<Instant>,
    /// A worker with an older heartbeat counts as dead.
    timeout: Duration,
    /// When the worker or its supervisor last moved, also without Redis.
    moved: Instant,
    restarts: u64,
}

/// The health of one queue's worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerState {
    /// The queue that the worker serves.
    pub queue: QueueName,
    /// True if the worker has had a recent heartbeat.
    pub alive: bool,
    /// How often the worker ended and was started again.
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
                    alive: entry.beat.is_some_and(|beat| beat.elapsed() < entry.timeout),
                    restarts: entry.restarts,
                })
            })
            .collect()
    }

    /// True if at least one worker was started and all of them live.
    pub fn ready(&self) -> bool {
        let states = self.states();
        !states.is_empty() && states.iter().all(|state| state.alive)
    }

    /// The longest time for which a worker has not moved.
    ///
    /// A worker that ends and begins again, because Redis does not answer, does move.
    pub fn oldest_sign(&self) -> Duration {
        let workers = *locked(&self.workers);
        let ages = workers.iter().flatten().map(|entry| entry.moved.elapsed());
        ages.max().unwrap_or_default()
    }

    /// Adds a worker, which counts as dead until its first heartbeat.
    pub(super) fn expect(&self, queue: QueueName, timeout: Duration) {
        let moved = Instant::now();
        locked(&self.workers)[queue.index()] =
            Some(Entry { beat: None, timeout, moved, restarts: 0 });
    }

    pub(super) fn beat(&self, queue: QueueName) {
        if let Some(entry) = &mut locked(&self.workers)[queue.index()] {
            (entry.beat, entry.moved) = (Some(Instant::now()), Instant::now());
        }
    }

    pub(super) fn ended(&self, queue: QueueName) {
        if let Some(entry) = &mut locked(&self.workers)[queue.index()] {
            (entry.beat, entry.moved) = (None, Instant::now());
        }
    }

    /// Notes that a worker could not begin, because Redis does not answer. It tries again.
    pub(super) fn tried(&self, queue: QueueName) {
        if let Some(entry) = &mut locked(&self.workers)[queue.index()] {
            entry.moved = Instant::now();
        }
    }

    pub(super) fn restarted(&self, queue: QueueName) {
        if let Some(entry) = &mut locked(&self.workers)[queue.index()] {
            entry.restarts += 1;
        }
    }
}
