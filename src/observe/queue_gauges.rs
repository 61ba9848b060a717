//! The gauges of queues and their workers.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    time::Instant,
};

use crate::{
    metrics,
    queue::{FirstJob, Queue, QueueError, WorkerHealth},
    send::recover::Liveness,
};

/// Sets the gauges of queues and their workers.
#[derive(Clone)]
pub struct QueueGauges {
    pub queue: Queue,
    pub health: WorkerHealth,
    pub liveness: Liveness,
}

impl QueueGauges {
    /// Sets the gauges of all queues.
    pub(super) async fn observe(&self) -> Result<(), QueueError> {
        for depth in self.queue.depths().await? {
            let queue = depth.queue.as_str();
            let states = [
                ("waiting", depth.active),
                ("retrying", depth.scheduled),
                ("running", depth.in_flight),
                ("dead", depth.dead),
                ("done", depth.done),
            ];
            for (state, n) in states {
                metrics::queue_jobs(queue, state, n);
            }
            metrics::queue_age(queue, self.age_s(queue, depth.first.as_ref()));
            metrics::queue_beat(queue, depth.oldest_beat_s.unwrap_or_default());
        }
        for worker in self.health.states() {
            metrics::queue_worker(worker.queue.as_str(), worker.alive);
            metrics::queue_restarts(worker.queue.as_str(), worker.restarts);
        }
        Ok(())
    }

    /// Returns the seconds since the first job of a queue was queued; 0 if the queue is empty.
    ///
    /// If the producer gave no time, returns the seconds for which this job has been the first.
    fn age_s(&self, queue: &str, first: Option<&FirstJob>) -> u64 {
        let mark = first.map_or(0, |job| hash_of(&job.id));
        let name = format!("first of {queue}");
        let seen = self.liveness.unchanged_for(&name, (mark, 0), Instant::now());
        first.map_or(0, |job| job.waits_s.unwrap_or(seen.as_secs()))
    }
}

fn hash_of(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}
