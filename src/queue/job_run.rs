//! One run of a job: counted, in a task of its own, and joined if the job is delivered again.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use tokio_util::task::TaskTracker;

use super::{
    enqueue::Queue,
    job_id::plain_id,
    lock::locked,
    queue_error::QueueError,
    queue_name::QueueName,
    received_job::{Handler, JobError, ReceivedJob},
};
use crate::domain::one_line;

/// Why a job is set aside whose id is not plain. A foreign producer may have made it.
const BAD_ID: &str = "the id is not made of 1 to 200 of the characters A-Z a-z 0-9 . _ : -";

/// How long to wait, in milliseconds, after each failed try to record that a run ended.
const END_RETRIES_MS: [u64; 4] = [100, 400, 1600, 6400];

/// Runs the jobs of one worker: the worker whose in-flight set holds them.
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
        let shared = self.queue.clone();
        let ending = {
            // The lock is kept until the run is listed. Otherwise a short run could remove itself
            // from the list before it is there.
            let mut running = locked(&shared.inner.running.jobs);
            match running.get(&key) {
                Some(ending) => ending.clone(),
                None => {
                    let listed = key.clone();
                    let task = self.tracker.clone().spawn(async move {
                        let queue = self.queue.clone();
                        let result = self.run_once(received).await;
                        locked(&queue.inner.running.jobs).remove(&listed);
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
            // Another worker took the job over, or the id is not the one that was queued. The
            // acknowledgement will fail and end this worker. The supervisor then clears up.
            return Err(JobError::Retry("not in flight at this worker".into()));
        }
        if !plain_id(&id) {
            self.end(&id).await;
            let shown = one_line(&id, 200);
            tracing::warn!(queue, job.id = shown, "job set aside as dead: {BAD_ID}");
            return Err(JobError::Abort(BAD_ID.to_owned()));
        }
        if starts > self.queue.inner.settings.crashes {
            let crashes = starts - 1;
            tracing::error!(
                queue,
                job.id = %id,
                starts = crashes,
                "job set aside as dead: it never ended"
            );
            return Err(JobError::Abort(format!("started {crashes} times and never ended")));
        }
        match AssertUnwindSafe((self.handler)(received)).catch_unwind().await {
            Ok(result) => {
                self.end(&id).await;
                if let Err(JobError::Abort(reason)) = &result {
                    tracing::warn!(queue, job.id = %id, reason, "job set aside as dead");
                }
                result
            }
            // A panic counts like a crash: the count of starts stays, and `queue.crashes` is the
            // limit.
            Err(_) => {
                tracing::error!(queue, job.id = %id, starts, "job panicked");
                Err(JobError::Retry("panicked".into()))
            }
        }
    }

    /// Counts a start. Returns how often the job was started without an end, or 0 if this worker
    /// does not have the job.
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

    /// Clears the count of starts. Tries for some seconds: a job must not count as crashed because
    /// Redis was away when the job ended.
    async fn end(&self, id: &str) {
        for wait_ms in END_RETRIES_MS {
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
