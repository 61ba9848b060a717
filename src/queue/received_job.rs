//! The contract between the queue and a handler: the job it gets, and the errors it may return.

use std::sync::Arc;

use futures_util::future::BoxFuture;

/// A job as its handler gets it.
#[derive(Clone, PartialEq, Eq)]
pub struct ReceivedJob {
    /// The id that the producer gave to the job.
    pub id: String,
    /// The payload, unread: the handler decodes it.
    pub payload: Vec<u8>,
    /// The number of this attempt, from 1. A run that a crash cut off does not count.
    pub attempt: u32,
}

/// The reason why a job did not end well.
///
/// An outcome that the domain can record, such as a refused confirmation, is no error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// Something cannot be reached. The job is tried up to 25 times. The pause before the next
    /// attempt is as many seconds as there were attempts.
    #[error("{0}")]
    Retry(String),
    /// The job can never work. It is set aside as dead.
    #[error("{0}")]
    Abort(String),
}

/// Runs a job of one queue.
pub(super) type Handler =
    Arc<dyn Fn(ReceivedJob) -> BoxFuture<'static, Result<(), JobError>> + Send + Sync>;
