//! The errors of the queue.

/// An error of the queue.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The id is too long or has wrong characters, or apalis would not give it back as it got it.
    /// The text leaves the id out on purpose: an id of a foreign producer may hold anything.
    #[error("a job id is 1 to 200 of A-Z a-z 0-9 . _ : - and neither a number nor a ULID")]
    BadId,
    /// No queue has this name.
    #[error("a queue is one of confirm, steps, chunks, preparations")]
    UnknownQueue,
    /// Redis did not answer, or refused.
    #[error("Redis: {0}")]
    Unavailable(#[from] redis::RedisError),
}

impl QueueError {
    /// Whether trying again does not help: a bad id or name, a key of another type, a fault of a
    /// script, or a missing permission. All other errors pass with the outage of Redis.
    pub(super) fn lasts(&self) -> bool {
        match self {
            Self::Unavailable(error) => {
                matches!(error.code(), Some("WRONGTYPE" | "ERR" | "NOPERM" | "NOAUTH"))
            }
            Self::BadId | Self::UnknownQueue => true,
        }
    }
}
