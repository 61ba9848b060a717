//! The state of the queues and of single jobs, for people and metrics.

use super::{enqueue::Queue, queue_error::QueueError, queue_name::QueueName};
use crate::clock::unix_now;

/// How full a queue is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueDepth {
    /// The queue.
    pub queue: QueueName,
    /// Jobs that wait for a worker.
    pub active: u64,
    /// Jobs that wait for their next attempt.
    pub scheduled: u64,
    /// The scheduled jobs that are due. Thousands of them mean that no worker lives.
    pub due: u64,
    /// Jobs that a worker has fetched and not ended.
    pub in_flight: u64,
    /// Jobs that were set aside as dead.
    pub dead: u64,
    /// Jobs that ended well and are still kept.
    pub done: u64,
    /// Registered workers of all daemons.
    pub workers: u64,
    /// The job that will be fetched next.
    pub first: Option<FirstJob>,
    /// The age of the oldest heartbeat, in seconds; none without workers.
    pub oldest_beat_s: Option<u64>,
}

/// The job that will be fetched next from its queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstJob {
    /// The id of the job.
    pub id: String,
    /// Seconds since the job was queued; none if its producer does not say when.
    pub waits_s: Option<u64>,
}

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// In the queue, for a worker to fetch.
    Waiting,
    /// Fetched by a worker.
    Running,
    /// Waiting for its next attempt.
    Retrying,
    /// Ended well.
    Done,
    /// Set aside as dead.
    Dead,
    /// Known, but on no list: somebody changed Redis by hand, or Redis was rolled back.
    Lost,
}

/// The state of a job, and the result of its last run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobStatus {
    /// Where the job is.
    pub state: JobState,
    /// How often the job was tried.
    pub attempts: u32,
    /// The JSON result of the last run that ended: `{"Ok": null}` or `{"Err": "..."}`. It is ""
    /// before the first run has ended.
    pub result: String,
    /// When the last run ended, in Unix seconds; 0 before the first run has ended.
    pub done_at: u64,
}

impl Queue {
    /// How full each queue is.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`]
    pub async fn depths(&self) -> Result<Vec<QueueDepth>, QueueError> {
        let mut depths = Vec::with_capacity(QueueName::ALL.len());
        for name in QueueName::ALL {
            depths.push(self.depth(name).await?);
        }
        Ok(depths)
    }

    /// The number of jobs that wait for a worker.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`]
    pub async fn waiting(&self, name: QueueName) -> Result<usize, QueueError> {
        Ok(redis::cmd("LLEN").arg(name.key("active")).query_async(&mut self.conn()).await?)
    }

    async fn depth(&self, name: QueueName) -> Result<QueueDepth, QueueError> {
        let mut conn = self.conn();
        let now_s = u64::from(unix_now());
        type Counts = (u64, u64, u64, u64, u64, Vec<(String, f64)>);
        let (active, scheduled, due, dead, done, workers): Counts = redis::pipe()
            .llen(name.key("active"))
            .zcard(name.key("scheduled"))
            .zcount(name.key("scheduled"), "-inf", now_s)
            .scard(name.key("dead"))
            .scard(name.key("done"))
            .zrange_withscores(name.key("workers"), 0, -1)
            .query_async(&mut conn)
            .await?;
        let mut pipe = redis::pipe();
        for (worker, _) in &workers {
            pipe.scard(name.inflight_key(worker));
        }
        let in_flight: Vec<u64> = match workers.is_empty() {
            true => Vec::new(),
            false => pipe.query_async(&mut conn).await?,
        };
        let first = self.first(name, now_s).await?;
        Ok(QueueDepth {
            queue: name,
            active,
            scheduled,
            due,
            in_flight: in_flight.iter().sum(),
            dead,
            done,
            workers: workers.len() as u64,
            first,
            oldest_beat_s: workers.iter().map(|(_, beat)| now_s.saturating_sub(*beat as u64)).max(),
        })
    }

    async fn first(&self, name: QueueName, now_s: u64) -> Result<Option<FirstJob>, QueueError> {
        let mut conn = self.conn();
        let id: Option<Vec<u8>> =
            redis::cmd("LINDEX").arg(name.key("active")).arg(0).query_async(&mut conn).await?;
        let Some(id) = id.map(|id| String::from_utf8_lossy(&id).into_owned()) else {
            return Ok(None);
        };
        let queued: Option<String> = redis::cmd("HGET")
            .arg(name.meta_key(&id))
            .arg("queued_at")
            .query_async(&mut conn)
            .await?;
        let queued: Option<u64> = queued.and_then(|seconds| seconds.parse().ok());
        Ok(Some(FirstJob { id, waits_s: queued.map(|at| now_s.saturating_sub(at)) }))
    }

    /// Where a job is, and how its last run ended.
    ///
    /// Returns none if the job never existed or has been forgotten.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`]
    pub async fn status(&self, name: QueueName, id: &str) -> Result<Option<JobStatus>, QueueError> {
        let fields: Vec<String> = self
            .inner
            .scripts
            .status
            .key(name.key("data"))
            .key(name.meta_key(id))
            .key(name.key("done"))
            .key(name.key("dead"))
            .key(name.key("scheduled"))
            .key(name.key("active"))
            .key(name.key("workers"))
            .arg(id)
            .arg(name.inflight_key(""))
            .invoke_async(&mut self.conn())
            .await?;
        let [state, attempts, result, done_at] = fields.as_slice() else {
            return Ok(None);
        };
        Ok(Some(JobStatus {
            state: match state.as_str() {
                "waiting" => JobState::Waiting,
                "running" => JobState::Running,
                "retrying" => JobState::Retrying,
                "done" => JobState::Done,
                "dead" => JobState::Dead,
                _ => JobState::Lost,
            },
            attempts: number(Some(attempts.clone())),
            result: result.clone(),
            done_at: number(Some(done_at.clone())),
        }))
    }
}

/// The number that a field holds; 0 if the field is missing or holds none.
pub(super) fn number<T: std::str::FromStr + Default>(text: Option<String>) -> T {
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}
