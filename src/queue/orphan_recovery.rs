//! Orphan recovery: the jobs of a worker that ended go back to the queue, or are set aside as dead.

use redis::AsyncCommands;

use super::{
    enqueue::Queue,
    job_id::{plain_id, round_trips},
    queue_error::QueueError,
    queue_name::QueueName,
};
use crate::clock::unix_now;

/// The most due retries that one script call moves.
const PROMOTED_AT_ONCE: u32 = 1000;

impl Queue {
    /// Clears up after `worker`, which has ended in this process: its jobs and its keys.
    pub(super) async fn recover_orphans(
        &self,
        name: QueueName,
        worker: &str,
    ) -> Result<(), QueueError> {
        let mut conn = self.conn();
        let orphans: Vec<Vec<u8>> = conn.smembers(name.inflight_key(worker)).await?;
        for id in orphans {
            match self.fault(name, &id).await? {
                Some(fault) => self.set_aside(name, worker, &id, fault).await?,
                None => {
                    let _: bool = self
                        .inner
                        .scripts
                        .put_back
                        .key(name.inflight_key(worker))
                        .key(name.key("active"))
                        .arg(id)
                        .invoke_async(&mut conn)
                        .await?;
                }
            }
        }
        self.retire(name, worker, false).await?;
        Ok(())
    }

    /// Removes the keys of a worker that is gone; see `retire.lua`. Returns how many jobs went back
    /// to the queue.
    pub(super) async fn retire(
        &self,
        name: QueueName,
        worker: &str,
        unless_registered: bool,
    ) -> Result<u32, QueueError> {
        Ok(self
            .inner
            .scripts
            .retire
            .key(name.key("workers"))
            .key(name.key("names"))
            .key(name.inflight_key(worker))
            .key(name.key(&format!("workers:metadata:{worker}")))
            .key(name.key("active"))
            .arg(worker)
            .arg(u8::from(unless_registered))
            .invoke_async(&mut self.conn())
            .await?)
    }

    /// Moves due retries to the queue in small steps. Otherwise the first fetch of a worker could
    /// meet thousands at once, which apalis cannot move.
    pub(super) async fn promote(&self, name: QueueName) -> Result<(), QueueError> {
        loop {
            let moved: u32 = self
                .inner
                .scripts
                .promote
                .key(name.key("scheduled"))
                .key(name.key("active"))
                .arg(unix_now())
                .arg(PROMOTED_AT_ONCE)
                .invoke_async(&mut self.conn())
                .await?;
            if moved < PROMOTED_AT_ONCE {
                return Ok(());
            }
        }
    }

    /// The fault of a job that would end every worker that fetches it, if there is one. Our own
    /// script makes no such jobs; a foreign producer may.
    async fn fault(&self, name: QueueName, id: &[u8]) -> Result<Option<&'static str>, QueueError> {
        let Some(id) = std::str::from_utf8(id).ok().filter(|id| round_trips(id)) else {
            return Ok(Some("the id is not one that a job can have"));
        };
        let mut conn = self.conn();
        if !conn.hexists(name.key("data"), id).await? {
            return Ok(Some("there is no payload"));
        }
        let meta: redis::RedisResult<Vec<(String, String)>> = conn.hgetall(name.meta_key(id)).await;
        let meta = match meta {
            Ok(meta) => meta,
            Err(e) if is_passing(&e) => return Err(e.into()),
            Err(_) => return Ok(Some("the meta fields are no text")),
        };
        let field = |wanted: &str| {
            meta.iter().find(|(field, _)| field == wanted).map(|(_, value)| value.as_str())
        };
        let number = |wanted| field(wanted).is_some_and(|value| value.parse::<u32>().is_ok());
        let status = field("status")
            .is_some_and(|status| status.parse::<apalis_core::task::status::Status>().is_ok());
        Ok((!(number("attempts") && number("max_attempts") && status))
            .then_some("the meta fields are missing or wrong"))
    }

    async fn set_aside(
        &self,
        name: QueueName,
        worker: &str,
        id: &[u8],
        fault: &'static str,
    ) -> Result<(), QueueError> {
        let _: bool = self
            .inner
            .scripts
            .set_aside
            .key(name.inflight_key(worker))
            .key(name.key("dead"))
            .key(name.meta_key_of_bytes(id))
            .arg(id)
            .arg(serde_json::json!({ "Err": fault }).to_string())
            .arg(unix_now())
            .invoke_async(&mut self.conn())
            .await?;
        let shown = std::str::from_utf8(id).ok().filter(|id| plain_id(id));
        tracing::warn!(
            queue = name.as_str(),
            job.id = shown.unwrap_or("(not plain)"),
            reason = fault,
            "job set aside as dead"
        );
        Ok(())
    }
}

/// True if Redis was away, or refused for a reason that is no fault of the job.
fn is_passing(error: &redis::RedisError) -> bool {
    error.is_io_error()
        || error.is_connection_dropped()
        || error.is_timeout()
        || error.code().is_some_and(|code| code != "WRONGTYPE")
}
