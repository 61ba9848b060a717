//! The retention of ended jobs: they are kept for a while and then forgotten, a few at a time.

use super::{enqueue::Queue, lock::locked, queue_error::QueueError, queue_name::QueueName};

/// The ids of one script call. The limit keeps a call short, so that none blocks Redis for long.
const IDS_PER_CALL: usize = 200;
/// The most SSCAN calls in one sweep of a set.
const CALLS: usize = 50;
/// Seconds. A younger worker name may belong to a worker that is just registering.
const NAME_AGE_S: u64 = 60;

/// The numbers of jobs and workers that a sweep removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SweptJobs {
    /// Jobs that had ended well.
    pub done: u64,
    /// Dead jobs.
    pub dead: u64,
    /// Workers that were gone, with their keys.
    pub workers: u64,
}

/// A set of ended jobs.
#[derive(Debug, Clone, Copy)]
enum EndedSet {
    Done,
    Dead,
}

impl Queue {
    /// Forgets jobs that ended longer ago than the settings keep them.
    ///
    /// `now_s` is the wall clock in Unix seconds.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`]
    pub async fn sweep(&self, now_s: u64) -> Result<SweptJobs, QueueError> {
        let settings = &self.inner.settings;
        let mut swept = SweptJobs::default();
        for name in QueueName::ALL {
            let done_before = now_s.saturating_sub(settings.keep_done_hours * 3600);
            let dead_before = now_s.saturating_sub(settings.keep_dead_hours * 3600);
            swept.done += self.sweep_set(name, EndedSet::Done, done_before).await?;
            swept.dead += self.sweep_set(name, EndedSet::Dead, dead_before).await?;
            swept.workers += self.sweep_names(name, now_s).await?;
        }
        Ok(swept)
    }

    async fn sweep_set(
        &self,
        name: QueueName,
        which: EndedSet,
        before_s: u64,
    ) -> Result<u64, QueueError> {
        let set = name.key(match which {
            EndedSet::Done => "done",
            EndedSet::Dead => "dead",
        });
        let mut conn = self.conn();
        let mut swept = 0;
        for _ in 0..CALLS {
            let cursor = self.sweep_cursor(name, which, |cursor| *cursor);
            let (cursor, ids): (u64, Vec<Vec<u8>>) = redis::cmd("SSCAN")
                .arg(&set)
                .arg(cursor)
                .arg("COUNT")
                .arg(IDS_PER_CALL)
                .query_async(&mut conn)
                .await?;
            for ids in ids.chunks(IDS_PER_CALL) {
                let mut call = self.inner.scripts.sweep.key(&set);
                call.key(name.key("data")).arg(name.meta_key("")).arg(before_s);
                for id in ids {
                    call.arg(id);
                }
                swept += call.invoke_async::<u64>(&mut conn).await?;
            }
            self.sweep_cursor(name, which, |kept| *kept = cursor);
            if cursor == 0 {
                break;
            }
        }
        Ok(swept)
    }

    /// Reads or changes the cursor of a sweep.
    fn sweep_cursor<T>(
        &self,
        name: QueueName,
        which: EndedSet,
        access: impl FnOnce(&mut u64) -> T,
    ) -> T {
        let mut cursors = locked(&self.inner.cursors);
        let cursors = cursors.of(name);
        access(match which {
            EndedSet::Done => &mut cursors.sweep_done,
            EndedSet::Dead => &mut cursors.sweep_dead,
        })
    }

    /// Removes the keys of workers that are no longer registered.
    async fn sweep_names(&self, name: QueueName, now_s: u64) -> Result<u64, QueueError> {
        let old: Vec<String> = redis::cmd("ZRANGEBYSCORE")
            .arg(name.key("names"))
            .arg("-inf")
            .arg(now_s.saturating_sub(NAME_AGE_S))
            .arg("LIMIT")
            .arg(0)
            .arg(IDS_PER_CALL)
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
