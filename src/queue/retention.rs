//! Done and dead jobs are kept for a while and then forgotten, a few at a time.

use super::{QUEUES, Queue, QueueError, QueueName, locked};

/// Ids looked at in one script, and batches in one sweep of one set: a sweep never holds Redis up.
const BATCH: usize = 200;
const BATCHES: usize = 50;
/// A name younger than this may belong to a worker that is just registering.
const NAME_AGE_S: u64 = 60;

/// Where the next sweep of a set goes on.
#[derive(Default)]
pub(super) struct Cursors([[u64; 2]; QUEUES]);

/// What a sweep removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    pub done: u64,
    pub dead: u64,
    /// Books of workers that are gone.
    pub workers: u64,
}

impl Queue {
    /// Forgets jobs that ended longer ago than the settings keep them. `now_s` is the wall clock in Unix seconds.
    pub async fn sweep(&self, now_s: u64) -> Result<Swept, QueueError> {
        let settings = &self.inner.settings;
        let mut swept = Swept::default();
        for name in QueueName::ALL {
            let done_before = now_s.saturating_sub(settings.keep_done_hours * 3600);
            let dead_before = now_s.saturating_sub(settings.keep_dead_hours * 3600);
            swept.done += self.sweep_set(name, 0, done_before).await?;
            swept.dead += self.sweep_set(name, 1, dead_before).await?;
            swept.workers += self.sweep_names(name, now_s).await?;
        }
        Ok(swept)
    }

    async fn sweep_set(&self, name: QueueName, which: usize, before_s: u64) -> Result<u64, QueueError> {
        let set = name.key(["done", "dead"][which]);
        let mut conn = self.conn();
        let mut swept = 0;
        for _ in 0..BATCHES {
            let cursor = locked(&self.inner.cursors).0[name.index()][which];
            let (cursor, ids): (u64, Vec<Vec<u8>>) =
                redis::cmd("SSCAN").arg(&set).arg(cursor).arg("COUNT").arg(BATCH).query_async(&mut conn).await?;
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
            let registered: Option<f64> =
                redis::cmd("ZSCORE").arg(name.key("workers")).arg(&worker).query_async(&mut self.conn()).await?;
            if registered.is_none() {
                self.retire(name, &worker, true).await?;
                gone += 1;
            }
        }
        Ok(gone)
    }
}
