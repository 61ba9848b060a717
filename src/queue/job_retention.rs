//! Done and dead jobs are kept for a while and then forgotten, a few at a time.

use super::enqueue::{QUEUES, Queue, QueueError, QueueName, locked, plain_id};

/// Ids looked at in one script, and batches in one sweep of one set: a sweep never holds Redis up.
const BATCH: usize = 200;
const BATCHES: usize = 50;
/// A name younger than this may belong to a worker that is just registering.
const NAME_AGE_S: u64 = 60;

/// Where the next sweep of the done, of the dead, and the next look at the dead go on.
#[derive(Default)]
pub(super) struct SweepCursors([[u64; 3]; QUEUES]);

/// What a sweep removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SweptJobs {
    pub done: u64,
    pub dead: u64,
    /// Books of workers that are gone.
    pub workers: u64,
}

impl Queue {
    /// Forgets jobs that ended longer ago than the settings keep them. `now_s` is the wall clock in Unix seconds.
    pub async fn sweep(&self, now_s: u64) -> Result<SweptJobs, QueueError> {
        let settings = &self.inner.settings;
        let mut swept = SweptJobs::default();
        for name in QueueName::ALL {
            let done_before = now_s.saturating_sub(settings.keep_done_hours * 3600);
            let dead_before = now_s.saturating_sub(settings.keep_dead_hours * 3600);
            swept.done += self.sweep_set(name, 0, done_before).await?;
            swept.dead += self.sweep_set(name, 1, dead_before).await?;
            swept.workers += self.sweep_names(name, now_s).await?;
        }
        Ok(swept)
    }

    async fn sweep_set(
        &self,
        name: QueueName,
        which: usize,
        before_s: u64,
    ) -> Result<u64, QueueError> {
        let set = name.key(["done", "dead"][which]);
        let mut conn = self.conn();
        let mut swept = 0;
        for _ in 0..BATCHES {
            let cursor = locked(&self.inner.cursors).0[name.index()][which];
            let (cursor, ids): (u64, Vec<Vec<u8>>) = redis::cmd("SSCAN")
                .arg(&set)
                .arg(cursor)
                .arg("COUNT")
                .arg(BATCH)
                .query_async(&mut conn)
                .await?;
            for ids in ids.chunks(BATCH) {
                let mut call = self.inner.scripts.sweep.key(&set);
                call.key(name.key("data")).arg(name.meta_key("")).arg(before_s);
                for id in ids {
                    call.arg(id);
                }
                swept += call.invoke_async::<u64>(&mut conn).await?;
            }
            locked(&self.inner.cursors).0[name.index()][which] = cursor;
            if cursor == 0 {
                break;
            }
        }
        Ok(swept)
    }

    /// Ids and results (JSON) of jobs that were set aside at `since_s` (Unix seconds) or later; of very many some at each call,
    /// in turn. Ids that no job of a well-behaved producer has are left out.
    pub async fn dead_since(
        &self,
        name: QueueName,
        since_s: u64,
    ) -> Result<Vec<(String, String)>, QueueError> {
        let mut conn = self.conn();
        let mut found = Vec::new();
        for _ in 0..BATCHES {
            let cursor = locked(&self.inner.cursors).0[name.index()][2];
            let (cursor, ids): (u64, Vec<Vec<u8>>) = redis::cmd("SSCAN")
                .arg(name.key("dead"))
                .arg(cursor)
                .arg("COUNT")
                .arg(BATCH)
                .query_async(&mut conn)
                .await?;
            locked(&self.inner.cursors).0[name.index()][2] = cursor;
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
                false => pipe.query_async(&mut conn).await?,
            };
            let of_late = ids
                .into_iter()
                .zip(ends)
                .filter(|(_, (done_at, _))| done_at.is_some_and(|at| at >= since_s));
            found.extend(of_late.map(|(id, (_, result))| (id, result.unwrap_or_default())));
            if cursor == 0 {
                break;
            }
        }
        Ok(found)
    }

    async fn sweep_names(&self, name: QueueName, now_s: u64) -> Result<u64, QueueError> {
        let old: Vec<String> = redis::cmd("ZRANGEBYSCORE")
            .arg(name.key("names"))
            .arg("-inf")
            .arg(now_s.saturating_sub(NAME_AGE_S))
            .arg("LIMIT")
            .arg(0)
            .arg(BATCH)
            .query_async(&mut self.conn())
            .await?;
        let mut gone = 0;
        for worker in old {
            let registered: Option<f64> = redis::cmd("ZSCORE")
                .arg(name.key("workers"))
                .arg(&worker)
                .query_async(&mut self.conn())
                .await?;
            if registered.is_none() {
                self.retire(name, &worker, true).await?;
                gone += 1;
            }
        }
        Ok(gone)
    }
}
