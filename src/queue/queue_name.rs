//! The four queues: their names and their Redis keys.

use std::str::FromStr;

use super::queue_error::QueueError;

/// The number of queues.
pub(super) const QUEUES: usize = 4;

/// One of the queues.
///
/// Each kind of urgency has its own queue, so that neither the chunks of a big delivery nor its
/// preparation delay a confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueueName {
    /// Confirmations from upstream systems. Only this queue is public.
    Confirm,
    /// Starting and finishing deliveries.
    Steps,
    /// Preparing deliveries, which may take minutes each.
    Preparations,
    /// Sending chunks.
    Chunks,
}

impl QueueName {
    /// All queues.
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

    /// The prefix of the queue's Redis keys.
    ///
    /// apalis writes the queue's own keys and the key `core:apalis:queues:list` in one script. All
    /// of these keys must share one cluster slot. The hash tag in braces provides that.
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

    /// The meta key of an id that may be any bytes.
    pub(super) fn meta_key_of_bytes(self, id: &[u8]) -> Vec<u8> {
        let mut key = self.meta_key("").into_bytes();
        key.extend_from_slice(id);
        key
    }

    pub(super) fn inflight_key(self, worker: &str) -> String {
        format!("{}:inflight:{worker}", self.redis_name())
    }

    /// The queue's place in arrays of length [`QUEUES`].
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
