//! Dead jobs: reading them, queueing them again, discarding them.

use super::{
    enqueue::Queue,
    inspect::number,
    job_id::{check_id, plain_id},
    lock::locked,
    queue_error::QueueError,
    queue_name::QueueName,
};

/// The ids that one scan step asks for. The limit keeps a step short: none blocks Redis for long.
const IDS_PER_STEP: usize = 200;
/// The most scan steps of one call.
const STEPS: usize = 50;

/// A job that was set aside as dead.
#[derive(Clone, PartialEq, Eq)]
pub struct DeadJob {
    /// The id of the job. An id that is not UTF-8 is shown with replacement characters.
    pub id: String,
    /// The payload; empty if there is none.
    pub payload: Vec<u8>,
    /// JSON: `{"Err": "..."}`.
    pub result: String,
    /// How often the job was tried.
    pub attempts: u32,
    /// When the job died, in Unix seconds.
    pub done_at: u64,
}

/// Leaves the payload out: the payload of a confirmation holds a token.
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
    /// The jobs of this page.
    pub jobs: Vec<DeadJob>,
    /// Where the next page begins; 0 at the end. A job that is dead during the whole scan is on at
    /// least one page.
    pub next: u64,
}

impl Queue {
    /// A page of the dead jobs.
    ///
    /// `cursor` is 0 or the `next` of an earlier page. The page has about `limit` jobs, sometimes a
    /// few more.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`]
    pub async fn dead(
        &self,
        name: QueueName,
        cursor: u64,
        limit: usize,
    ) -> Result<DeadPage, QueueError> {
        let mut conn = self.conn();
        let (next, ids) = self.scan_dead(name, cursor, limit.max(1)).await?;
        let mut jobs = Vec::with_capacity(ids.len());
        for id in ids {
            type Fields = (Option<Vec<u8>>, (Option<String>, Option<String>, Option<String>));
            let (payload, (result, attempts, done_at)): Fields = redis::pipe()
                .hget(name.key("data"), &id)
                .hmget(name.meta_key_of_bytes(&id), &["result", "attempts", "done_at"])
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

    /// Ids and results (JSON) of jobs that died at `since_s` (Unix seconds) or later.
    ///
    /// If there are very many dead jobs, one call looks at a part of them, and the next call
    /// continues there. Ids that are too long, or have characters that no job id may have, are left
    /// out.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`]
    pub async fn dead_since(
        &self,
        name: QueueName,
        since_s: u64,
    ) -> Result<Vec<(String, String)>, QueueError> {
        let mut found = Vec::new();
        for _ in 0..STEPS {
            let cursor = locked(&self.inner.cursors).of(name).recent_dead;
            let (cursor, ids) = self.scan_dead(name, cursor, IDS_PER_STEP).await?;
            locked(&self.inner.cursors).of(name).recent_dead = cursor;
            let ids: Vec<String> = ids
                .into_iter()
                .filter_map(|id| String::from_utf8(id).ok())
                .filter(|id| plain_id(id))
                .collect();
            let mut pipe = redis::pipe();
            for id in &ids {
                pipe.hmget(name.meta_key(id), &["done_at", "result"]);
            }
            let ends: Vec<(Option<u64>, Option<String>)> = match ids.is_empty() {
                true => Vec::new(),
                false => pipe.query_async(&mut self.conn()).await?,
            };
            let recent = ids
                .into_iter()
                .zip(ends)
                .filter(|(_, (done_at, _))| done_at.is_some_and(|at| at >= since_s));
            found.extend(recent.map(|(id, (_, result))| (id, result.unwrap_or_default())));
            if cursor == 0 {
                break;
            }
        }
        Ok(found)
    }

    /// One step of a scan over the dead jobs: the next cursor and some ids.
    async fn scan_dead(
        &self,
        name: QueueName,
        cursor: u64,
        count: usize,
    ) -> Result<(u64, Vec<Vec<u8>>), QueueError> {
        Ok(redis::cmd("SSCAN")
            .arg(name.key("dead"))
            .arg(cursor)
            .arg("COUNT")
            .arg(count)
            .query_async(&mut self.conn())
            .await?)
    }

    /// Puts a dead job back on its queue as if it were new.
    ///
    /// Returns false if there is no such dead job, or if the job has no payload.
    ///
    /// # Errors
    /// [`QueueError::BadId`] for an id that no job can have: a job with such an id would die again;
    /// [`QueueError::Unavailable`]
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
            self.wake(name);
        }
        Ok(retried)
    }

    /// Forgets a dead job. Returns false if there is no such dead job.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`]
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
}
