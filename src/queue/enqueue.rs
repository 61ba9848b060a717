//! The jobs: what waits, runs and is set aside. The only user of apalis.
//!
//! A job is a hint, not a fact: it says that a step is worth trying. So a job may be delivered twice, and a step that finds
//! nothing to do ends well. `docs/queue.md` is the contract for producers that are not ours.

use std::{
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};

use apalis_core::task::task_id::TaskId;
use redis::aio::ConnectionManager;
use tokio::sync::Notify;

use crate::config;

pub(super) const QUEUES: usize = 4;

/// One queue for each kind of urgency, so that neither a big delivery's chunks nor its preparation delay a confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueueName {
    /// Confirmations put there by upstream systems: the public one.
    Confirm,
    /// Start and finish a delivery.
    Steps,
    /// Prepare a delivery: that may take minutes.
    Preparations,
    /// Send a chunk.
    Chunks,
}

impl QueueName {
    pub const ALL: [Self; QUEUES] = [Self::Confirm, Self::Steps, Self::Chunks, Self::Preparations];

    /// The word for logs, metrics and routes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Confirm => "confirm",
            Self::Steps => "steps",
            Self::Preparations => "preparations",
            Self::Chunks => "chunks",
        }
    }

    /// The prefix of its Redis keys. apalis registers every queue in the key `core:apalis:queues:list` from the script that
    /// also writes the queue's own keys, so all must share that key's slot: hence the hash tag.
    pub const fn redis_name(self) -> &'static str {
        match self {
            Self::Confirm => "versand:{core:apalis:queues:list}:confirm",
            Self::Steps => "versand:{core:apalis:queues:list}:steps",
            Self::Preparations => "versand:{core:apalis:queues:list}:preparations",
            Self::Chunks => "versand:{core:apalis:queues:list}:chunks",
        }
    }

    pub(super) fn key(self, part: &str) -> String {
        format!("{}:{part}", self.redis_name())
    }

    pub(super) fn meta_key(self, id: &str) -> String {
        format!("{}:meta:{id}", self.redis_name())
    }

    pub(super) fn inflight_key(self, worker: &str) -> String {
        format!("{}:inflight:{worker}", self.redis_name())
    }

    pub(super) const fn index(self) -> usize {
        match self {
            Self::Confirm => 0,
            Self::Steps => 1,
            Self::Chunks => 2,
            Self::Preparations => 3,
        }
    }
}

impl FromStr for QueueName {
    type Err = QueueError;

    fn from_str(word: &str) -> Result<Self, QueueError> {
        Self::ALL.into_iter().find(|name| name.as_str() == word).ok_or(QueueError::UnknownQueue)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The id is left out on purpose: a foreign one may hold anything.
    #[error("a job id is 1 to 200 of A-Z a-z 0-9 . _ : - and neither a number nor a ULID")]
    BadId,
    #[error("a queue is one of confirm, steps, chunks, preparations")]
    UnknownQueue,
    #[error("Redis: {0}")]
    Unavailable(#[from] redis::RedisError),
}

/// The queues on one Redis. Cheap to clone.
#[derive(Clone)]
pub struct Queue {
    pub(super) inner: Arc<QueueState>,
}

pub(super) struct QueueState {
    conn: ConnectionManager,
    pub(super) settings: config::QueueSettings,
    pub(super) scripts: super::scripts::Scripts,
    /// Rung when a queue may have work, one bell for each.
    pub(super) bells: [Notify; QUEUES],
    /// The queues that are looked at for work by this process.
    pub(super) watched: Mutex<Vec<QueueName>>,
    pub(super) runs: super::job_run::RunningJobs,
    pub(super) cursors: Mutex<super::job_retention::SweepCursors>,
}

impl Queue {
    /// `conn` must not give up on a reply before some ten seconds: an error that reaches a worker ends it.
    pub fn new(conn: ConnectionManager, settings: config::QueueSettings) -> Self {
        Self {
            inner: Arc::new(QueueState {
                conn,
                settings,
                scripts: super::scripts::Scripts::new(),
                bells: Default::default(),
                watched: Mutex::default(),
                runs: super::job_run::RunningJobs::default(),
                cursors: Mutex::default(),
            }),
        }
    }

    /// Puts a job on a queue; false when one of that id is still there, be it waiting, running, done or dead.
    ///
    /// # Errors
    /// [`QueueError::BadId`] for an id that apalis would not give back as it got it.
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
            self.ring(name);
        }
        Ok(added)
    }

    pub(super) fn conn(&self) -> ConnectionManager {
        self.inner.conn.clone()
    }

    pub(super) fn ring(&self, name: QueueName) {
        self.inner.bells[name.index()].notify_one();
    }
}

/// What has to hold for an id to be usable.
pub(super) fn check_id(id: &str) -> Result<(), QueueError> {
    if plain_id(id) && round_trips(id) { Ok(()) } else { Err(QueueError::BadId) }
}

/// Characters that are safe in a key, a URL path and a log line.
pub(super) fn plain_id(id: &str) -> bool {
    (1..=200).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'))
}

/// apalis reads an id as a ULID or a number where it can, and writes it back in its own way: `007` would come back as `7`.
pub(super) fn round_trips(id: &str) -> bool {
    TaskId::from_str(id).is_ok_and(|parsed| parsed.as_string() == Some(id))
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
