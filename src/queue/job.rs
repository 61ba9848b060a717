//! The payloads of jobs: our own, and the public one.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::received_job::JobError;

/// A job of our own, on the queues `steps`, `preparations` and `chunks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "snake_case", deny_unknown_fields)]
pub enum Job {
    /// Prepares a delivery.
    Prepare {
        /// The id of the delivery.
        delivery: String,
    },
    /// Makes the ledgers of a confirmed delivery and queues its first chunks.
    StartDelivery {
        /// The id of the delivery.
        delivery: String,
    },
    /// Ends a delivery whose chunks are all done.
    FinishDelivery {
        /// The id of the delivery.
        delivery: String,
    },
    /// Sends a chunk.
    SendChunk {
        /// The id of the delivery.
        delivery: String,
        /// The number of the chunk, from 0.
        chunk: u32,
        /// The ordinal of this job among the jobs of the chunk. Each job needs an id of its own,
        /// because the id of a job that ended cannot be used again.
        round: u32,
    },
}

impl Job {
    /// Reads a payload.
    ///
    /// # Errors
    /// [`JobError::Abort`]: a payload that cannot be read does not get better by waiting.
    pub fn decode(payload: &[u8]) -> Result<Self, JobError> {
        decode(payload)
    }

    /// The payload of the job, as JSON.
    pub fn encode(&self) -> Vec<u8> {
        // A derived enum of strings and numbers cannot fail to serialize.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// The public job, on the queue `confirm`: confirms a prepared delivery.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmSend {
    /// The id of the delivery.
    pub delivery: String,
    /// The SHA-256 that the preparation answered with.
    pub digest: String,
    /// A JWT (RFC 7519) with the claims `iss`, `sub`, `aud`, `exp`, `iat`, `jti`, `roles`,
    /// `action` = `confirm_send`, `delivery` and `digest`. The last two must be those of this job.
    pub token: String,
}

impl ConfirmSend {
    /// Reads a payload.
    ///
    /// # Errors
    /// [`JobError::Abort`], as for [`Job::decode`].
    pub fn decode(payload: &[u8]) -> Result<Self, JobError> {
        decode(payload)
    }
}

/// Leaves the token out: the token is a credential until it is spent.
impl std::fmt::Debug for ConfirmSend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfirmSend")
            .field("delivery", &self.delivery)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, JobError> {
    // The error is logged, so serde's own text is left out: it may quote the payload.
    serde_json::from_slice(payload).map_err(|e| {
        JobError::Abort(format!(
            "the payload is not a job of this queue: {:?} error at column {}",
            e.classify(),
            e.column()
        ))
    })
}
