//! What people and metrics see of the queues.

use super::{
    enqueue::{Queue, QueueError, QueueName, check_id},
    orphan_recovery::now_s,
};

/// How full a queue is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueDepth {
    pub queue: QueueName,
    /// Waiting to be fetched.
    pub active: u64,
    /// Waiting for their next attempt.
    pub scheduled: u64,
    /// Of these, how many are due: thousands of them mean that no worker lives.
    pub due: u64,
    pub in_flight: u64,
    pub dead: u64,
    pub done: u64,
    /// Registered workers, those of other daemons too.
    pub workers: u64,
    /// The one that is next.
    pub first: Option<FirstJob>,
    /// Age of the oldest heartbeat, in seconds; none without workers.
    pub oldest_beat_s: Option<u64>,
}

/// A job that waits to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstJob {
    pub id: String,
    /// Seconds since it was queued; none if its producer does not say when.
    pub waits_s: Option<u64>,
}

/// A job that was set aside.
#[derive(Clone, PartialEq, Eq)]
pub struct DeadJob {
    pub id: String,
    pub payload: Vec<u8>,
    /// JSON: `{"Err": "..."}`.
    pub result: String,
    pub attempts: u32,
    /// Unix seconds.
    pub done_at: u64,
}

/// Without the payload: that of a confirmation holds a token.
impl std::fmt::Debug for DeadJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadJob")
            .field("id", &self.id)
            .field("result", &self.result)
            .finish_non_exhaustive()
    }
}

/// Some dead jobs, in no order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadPage {
    pub jobs: Vec<DeadJob>,
    /// Where to go on; 0 at the end. A job that is there all the time is on one page at least.
    pub next: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    Waiting,
    Running,
    Retrying,
    Done,
    Dead,
    /// Known, but on no list: somebody changed Redis by hand, or it was rolled back.
    Lost,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobStatus {
    pub state: JobState,
    pub attempts: u32,
    /// JSON of the last end, `{"Ok": null}` or `{"Err": "..."}`; "" before the first.
    pub result: String,
    /// Unix seconds of the last end, 0 before the first.
    pub done_at: u64,
}

impl Queue {
    /// How full each queue is.
    pub async fn depths(&self) -> Result<Vec<QueueDepth>, QueueError> {
        let mut depths = Vec::with_capacity(QueueName::ALL.len());
        for name in QueueName::ALL {
            depths.push(self.depth(name).await?);
        }
        Ok(depths)
    }

    /// How many jobs wait on a queue.
    pub async fn waiting(&self, name: QueueName) -> Result<usize, QueueError> {
        Ok(redis::cmd("LLEN").arg(name.key("active")).query_async(&mut self.conn()).await?)
    }

    async fn depth(&self, name: QueueName) -> Result<QueueDepth, QueueError> {
        let mut conn = self.conn();
        let now_s = now_s();
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
        let mut held = redis::pipe();
        for (worker, _) in &workers {
            held.scard(name.inflight_key(worker));
        }
        let held: Vec<u64> = match workers.is_empty() {
            true => Vec::new(),
            false => held.query_async(&mut conn).await?,
        };
        let first = self.first(name, now_s).await?;
        Ok(QueueDepth {
            queue: name,
            active,
            scheduled,
            due,
            in_flight: held.iter().sum(),
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

    /// A page of the dead jobs from `cursor` on, which is 0 or a page's `next`; about `limit` of them, a few more at times.
    pub async fn dead(
        &self,
        name: QueueName,
        cursor: u64,
        limit: usize,
    ) -> Result<DeadPage, QueueError> {
        let mut conn = self.conn();
        let (next, ids): (u64, Vec<Vec<u8>>) = redis::cmd("SSCAN")
            .arg(name.key("dead"))
            .arg(cursor)
            .arg("COUNT")
            .arg(limit.max(1))
            .query_async(&mut conn)
            .await?;
        let mut jobs = Vec::with_capacity(ids.len());
        for id in ids {
            let mut meta_key = name.meta_key("").into_bytes();
            meta_key.extend_from_slice(&id);
            type Fields = (Option<Vec<u8>>, (Option<String>, Option<String>, Option<String>));
            let (payload, (result, attempts, done_at)): Fields = redis::pipe()
                .hget(name.key("data"), &id)
                .hmget(meta_key, &["result", "attempts", "done_at"])
                .query_async(&mut conn)
                .await?;
            jobs.push(DeadJob {
                id: String::from_utf8_lossy(&id).into_owned(),
                payload: payload.unwrap_or_default(),
                result: result.unwrap_or_default(),
                attempts: number(attempts),
                done_at: number(done_at),
            });
        }
        Ok(DeadPage { jobs, next })
    }

    /// Puts a dead job back as if it were new; false when there is no such dead job or it has no payload.
    ///
    /// # Errors
    /// [`QueueError::BadId`] for one that was set aside for its id: it would be again.
    pub async fn retry_dead(&self, name: QueueName, id: &str) -> Result<bool, QueueError> {
        check_id(id)?;
        let retried = self
            .inner
            .scripts
            .retry_dead
            .key(name.key("dead"))
            .key(name.key("data"))
            .key(name.meta_key(id))
            .key(name.key("active"))
            .arg(id)
            .invoke_async(&mut self.conn())
            .await?;
        if retried {
            self.ring(name);
        }
        Ok(retried)
    }

    /// Forgets a dead job; false when there is no such dead job.
    pub async fn discard_dead(&self, name: QueueName, id: &str) -> Result<bool, QueueError> {
        Ok(self
            .inner
            .scripts
            .discard_dead
            .key(name.key("dead"))
            .key(name.key("data"))
            .key(name.meta_key(id))
            .arg(id)
            .invoke_async(&mut self.conn())
            .await?)
    }

    /// Where a job is; none when it was never there or has been forgotten.
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

fn number<T: std::str::FromStr + Default>(text: Option<String>) -> T {
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}
