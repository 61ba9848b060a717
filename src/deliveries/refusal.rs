//! The reasons for which a step is refused.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    domain::{Invalid, Role, audience::LineError, delivery::IllegalTransition},
    queue::{JobError, QueueError},
    store::StoreError,
};

/// Why a step was refused. The variant decides the HTTP status, and whether a job is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("there is no such delivery")]
    NotFound,
    #[error("there is no such recipient")]
    NoRecipient,
    #[error("the delivery does not recur")]
    NoRecurrence,
    #[error("the logs were removed on {0:.0}")]
    Cleaned(Timestamp),
    #[error("the tracking log was removed on {0:.0}; the statistics stay as they were")]
    TrackingCleaned(Timestamp),
    #[error("the role {} is missing", .0.word())]
    MissingRole(Role),
    /// Another person has to do it. The text says why.
    #[error("{0}")]
    NotYours(&'static str),
    #[error("{0}")]
    Illegal(#[from] IllegalTransition),
    #[error("the digest is not that of the prepared delivery: prepare and check it again")]
    StaleDigest,
    /// The delivery has this revision.
    #[error("the delivery was changed meanwhile: its revision is {0}, not that of If-Match")]
    StaleRevision(u64),
    #[error(
        "this request confirms the delivery: If-Match must name the revision that you looked at"
    )]
    RevisionNeeded,
    #[error("the idempotency key was used for another request")]
    KeyReused,
    #[error("{0}")]
    Invalid(#[from] Invalid),
    #[error("{0}")]
    Line(#[from] LineError),
    #[error("the upload broke off: {0}")]
    BrokenUpload(String),
    #[error("{0}")]
    Conflict(&'static str),
    /// The principal may send that many proofs only after `wait`.
    #[error(
        "more than preparation.proofs_per_hour ({per_hour}): ask again in {} s", wait.as_secs() + 1
    )]
    TooManyProofs { per_hour: u64, wait: Duration },
    #[error("the delivery was altered in Redis: it is not sent; stop it or delete it")]
    Altered,
    #[error("{0}")]
    Unavailable(#[from] StoreError),
    #[error("{0}")]
    Queue(#[from] QueueError),
}

/// A job is tried again only if Redis refused or did not answer. All else ends the job.
impl From<Refusal> for JobError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unavailable(StoreError::Unavailable(e)) => Self::Retry(e.to_string()),
            Refusal::Queue(QueueError::Unavailable(e)) => Self::Retry(e.to_string()),
            other => Self::Abort(other.to_string()),
        }
    }
}

impl From<StoreError> for JobError {
    fn from(error: StoreError) -> Self {
        Refusal::from(error).into()
    }
}

impl From<QueueError> for JobError {
    fn from(error: QueueError) -> Self {
        Refusal::from(error).into()
    }
}
