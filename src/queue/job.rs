//! What a job says: our own, and the public one.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::job_run::JobError;

/// A job of our own, on the queues `steps`, `preparations` and `chunks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "snake_case", deny_unknown_fields)]
pub enum Job {
    Prepare {
        delivery: String,
    },
    StartDelivery {
        delivery: String,
    },
    FinishDelivery {
        delivery: String,
    },
    /// `round` is raised for every job of a chunk, for the id of a job that ended cannot be used again.
    SendChunk {
        delivery: String,
        chunk: u32,
        round: u32,
    },
}

impl Job {
    /// # Errors
    /// [`JobError::Abort`]: a payload that cannot be read does not get better by waiting.
    pub fn decode(payload: &[u8]) -> Result<Self, JobError> {
        decode(payload)
    }

    pub fn encode(&self) -> Vec<u8> {
        // A derived enum of strings and numbers has no way to fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// The public job: releases a prepared delivery. `token` is a JWT (RFC 7519) with the claims `iss`, `sub`, `aud`, `exp`,
/// `iat`, `jti`, `roles`, `action` = `confirm_send`, `delivery` and `digest`; the last two must agree with the job's.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmSend {
    pub delivery: String,
    /// The SHA-256 that the preparation answered with.
    pub digest: String,
    pub token: String,
}

impl ConfirmSend {
    /// # Errors
    /// [`JobError::Abort`], as for [`Job::decode`].
    pub fn decode(payload: &[u8]) -> Result<Self, JobError> {
        decode(payload)
    }
}

/// Without the token: it is a credential until it is spent.
impl std::fmt::Debug for ConfirmSend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfirmSend")
            .field("delivery", &self.delivery)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, JobError> {
    // serde's own text may quote the payload, and this one is logged.
    serde_json::from_slice(payload).map_err(|e| {
        JobError::Abort(format!(
            "the payload is not a job of this queue: {:?} error at column {}",
            e.classify(),
            e.column()
        ))
    })
}
