//! One run of a job: counted, in a task of its own, joined when the job is delivered again meanwhile.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio_util::task::TaskTracker;

use super::enqueue::{Queue, QueueError, QueueName, locked};

/// A job as its step gets it.
#[derive(Clone, PartialEq, Eq)]
pub struct ReceivedJob {
    pub id: String,
    pub payload: Vec<u8>,
    /// 1 for the first; a run that a crash cut off is not counted.
    pub attempt: u32,
}

/// Why a job did not end well. What the domain knows how to record is no error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// Something is unreachable: tried again after as many seconds as there were attempts, 25 times.
    #[error("{0}")]
    Retry(String),
    /// It can never work: set aside as dead.
    #[error("{0}")]
    Abort(String),
}

pub(super) type Handler =
    Arc<dyn Fn(ReceivedJob) -> BoxFuture<'static, Result<(), JobError>> + Send + Sync>;

type JobEnding = Shared<BoxFuture<'static, Result<(), JobError>>>;

/// The jobs that run in this process. A worker that ends drops its futures but not these, and its successor, which gets the
/// same jobs, waits for them instead of starting them a second time.
#[derive(Default)]
pub(super) struct RunningJobs {
    running: Mutex<HashMap<(QueueName, String), JobEnding>>,
}

impl RunningJobs {
    /// Whether a job of this queue is running.
    pub fn any(&self, name: QueueName) -> bool {
        locked(&self.running).keys().any(|(queue, _)| *queue == name)
    }
}

/// Who delivers: the worker whose in-flight set holds the job.
#[derive(Clone)]
pub(super) struct JobRun {
    pub queue: Queue,
    pub name: QueueName,
    pub worker: String,
    pub tracker: TaskTracker,
    pub handler: Handler,
}

impl JobRun {
    /// Runs the job, or joins its run. Dropping the future does not stop the run.
    pub async fn run(self, received: ReceivedJob) -> Result<(), JobError> {
        let key = (self.name, received.id.clone());
        let runs = self.queue.clone();
        let ending = {
            // Held until the run is listed: it takes itself off the list, which must come later.
            let mut running = locked(&runs.inner.runs.running);
            match running.get(&key) {
                Some(ending) => ending.clone(),
                None => {
                    let off_the_list = key.clone();
                    let task = self.tracker.clone().spawn(async move {
                        let queue = self.queue.clone();
                        let result = self.run_once(received).await;
                        locked(&queue.inner.runs.running).remove(&off_the_list);
                        result
                    });
                    let ending = task
                        .map(|joined| {
                            joined.unwrap_or_else(|_| Err(JobError::Retry("cut off".into())))
                        })
                        .boxed()
                        .shared();
                    running.insert(key, ending.clone());
                    ending
                }
            }
        };
        ending.await
    }

    async fn run_once(&self, received: ReceivedJob) -> Result<(), JobError> {
        let id = received.id.clone();
        let queue = self.name.as_str();
        let starts = match self.begin(&id).await {
            Ok(starts) => starts,
            Err(e) => return Err(JobError::Retry(e.to_string())),
        };
        if starts == 0 {
            // Taken over, or under an id that is not what was queued. Acknowledging fails and ends the worker, whose
            // supervisor sorts it out.
            return Err(JobError::Retry("not held by this worker".into()));
        }
        if starts > self.queue.inner.settings.crashes {
            tracing::error!(queue, job.id = %id, starts = starts - 1, "job set aside as dead: it never ended");
            return Err(JobError::Abort(format!("started {} times and never ended", starts - 1)));
        }
        match AssertUnwindSafe((self.handler)(received)).catch_unwind().await {
            Ok(result) => {
                self.end(&id).await;
                if let Err(JobError::Abort(reason)) = &result {
                    tracing::warn!(queue, job.id = %id, reason, "job set aside as dead");
                }
                result
            }
            // Counted like a crash: neither the first panic nor the hundredth decides.
            Err(_) => {
                tracing::error!(queue, job.id = %id, starts, "job panicked");
                Err(JobError::Retry("panicked".into()))
            }
        }
    }

    async fn begin(&self, id: &str) -> Result<u32, QueueError> {
        Ok(self
            .queue
            .inner
            .scripts
            .begin
            .key(self.name.inflight_key(&self.worker))
            .key(self.name.meta_key(id))
            .arg(id)
            .invoke_async(&mut self.queue.conn())
            .await?)
    }

    /// Forgets the starts. Tried for a while: a job must not be called a crasher because Redis was away when it ended.
    async fn end(&self, id: &str) {
        for wait_ms in [100, 400, 1600, 6400] {
            let cleared: redis::RedisResult<()> = redis::cmd("HDEL")
                .arg(self.name.meta_key(id))
                .arg("starts")
                .query_async(&mut self.queue.conn())
                .await;
            if cleared.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        }
    }
}
