//! `Queue`, the access to all queues on one Redis, and how a job is put on a queue.

use std::sync::{Arc, Mutex};

use redis::aio::ConnectionManager;
use tokio::sync::Notify;

use super::{
    job_id::check_id,
    queue_error::QueueError,
    queue_name::{QUEUES, QueueName},
    running_jobs::RunningJobs,
    scripts::Scripts,
};
use crate::config;

/// The queues on one Redis. Cheap to clone.
#[derive(Clone)]
pub struct Queue {
    pub(super) inner: Arc<QueueState>,
}

/// The state that the clones of a [`Queue`] share.
pub(super) struct QueueState {
    conn: ConnectionManager,
    pub(super) settings: config::QueueSettings,
    pub(super) scripts: Scripts,
    /// One signal for each queue: the queue may have work.
    pub(super) wake_ups: [Notify; QUEUES],
    /// The queues that this process polls for work.
    pub(super) polled: Mutex<Vec<QueueName>>,
    pub(super) running: RunningJobs,
    pub(super) cursors: Mutex<ScanCursors>,
}

/// The cursors at which the next scans of ended jobs continue.
#[derive(Clone, Copy, Default)]
pub(super) struct ScanCursors([SetCursors; QUEUES]);

/// The cursors of one queue (`SSCAN`); 0 is the beginning.
#[derive(Clone, Copy, Default)]
pub(super) struct SetCursors {
    /// For the sweep of the done jobs.
    pub sweep_done: u64,
    /// For the sweep of the dead jobs.
    pub sweep_dead: u64,
    /// For the search for jobs that died recently.
    pub recent_dead: u64,
}

impl ScanCursors {
    /// The cursors of a queue.
    pub fn of(&mut self, name: QueueName) -> &mut SetCursors {
        &mut self.0[name.index()]
    }
}

impl Queue {
    /// Makes the access to the queues.
    ///
    /// `conn` must wait at least ten seconds for a reply: an error that reaches a worker ends the
    /// worker.
    pub fn new(conn: ConnectionManager, settings: config::QueueSettings) -> Self {
        Self {
            inner: Arc::new(QueueState {
                conn,
                settings,
                scripts: Scripts::new(),
                wake_ups: Default::default(),
                polled: Mutex::default(),
                running: RunningJobs::default(),
                cursors: Mutex::default(),
            }),
        }
    }

    /// Puts a job on a queue.
    ///
    /// Returns false if a job with this id still exists: waiting, running, retrying, done or dead.
    /// Nothing has changed then.
    ///
    /// # Errors
    /// [`QueueError::BadId`] if the id is empty, is too long or has wrong characters, or if apalis
    /// would not give it back unchanged; [`QueueError::Unavailable`]
    pub async fn enqueue(
        &self,
        name: QueueName,
        id: &str,
        payload: &[u8],
    ) -> Result<bool, QueueError> {
        check_id(id)?;
        let added: bool = self
            .inner
            .scripts
            .enqueue
            .key(name.key("data"))
            .key(name.meta_key(id))
            .key(name.key("active"))
            .arg(id)
            .arg(payload)
            .invoke_async(&mut self.conn())
            .await?;
        if added {
            self.wake(name);
        }
        Ok(added)
    }

    pub(super) fn conn(&self) -> ConnectionManager {
        self.inner.conn.clone()
    }

    /// Signals the queue's worker in this process that the queue may have work.
    pub(super) fn wake(&self, name: QueueName) {
        self.inner.wake_ups[name.index()].notify_one();
    }
}
