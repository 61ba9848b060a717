//! The keys under which a repeated request gets its first answer.

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::refusal::Refusal;
use crate::{
    domain::delivery::DeliveryId,
    store::{OnceKey, StoreError, keys},
};

/// How long an idempotency key repeats its answer, in seconds.
const KEY_SECONDS: u64 = 24 * 3600;

/// An `Idempotency-Key` and the request that it came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Keys of different principals do not collide.
    pub principal: String,
    pub key: String,
    /// Over action and body, in hexadecimal digits.
    pub request_sha256: String,
}

impl IdempotencyKey {
    /// `action` names the request, with the delivery and the chunk that its path names, if any.
    /// `body` holds what counts of the body: all of it, only the digest, or nothing.
    pub fn new(principal: &str, key: &str, action: &str, body: &[u8]) -> Self {
        let digest =
            Sha256::new().chain_update(action).chain_update(b"\0").chain_update(body).finalize();
        Self {
            principal: principal.to_owned(),
            key: key.to_owned(),
            request_sha256: HEXLOWER.encode(&digest),
        }
    }

    fn redis_key(&self, id: &DeliveryId) -> String {
        let digest = Sha256::new()
            .chain_update(&self.principal)
            .chain_update(b"\0")
            .chain_update(&self.key)
            .finalize();
        keys::idempotency(id, &HEXLOWER.encode(&digest[..16]))
    }
}

/// Where the first answer to a request is kept, for repeated requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepeatKey {
    /// The key in Redis.
    pub key: String,
    pub request_sha256: String,
    /// How long the answer is kept.
    pub seconds: u64,
}

impl RepeatKey {
    /// The key of a request to one delivery.
    pub fn of(key: &IdempotencyKey, id: &DeliveryId) -> Self {
        Self {
            key: key.redis_key(id),
            request_sha256: key.request_sha256.clone(),
            seconds: KEY_SECONDS,
        }
    }

    /// A second key, for requests that write one key when they begin, and this one when their work
    /// is done.
    pub fn when_done(&self) -> Self {
        Self { key: format!("{}:done", self.key), ..self.clone() }
    }
}

/// An answer as it is kept in Redis.
#[derive(Serialize, Deserialize)]
struct KeptAnswer {
    request_sha256: String,
    answer: Value,
}

/// An answer and its keys in the form that the commit script writes.
pub(super) fn kept_answers(repeats: &[RepeatKey], answer: &Value) -> Vec<OnceKey> {
    let kept = |repeat: &RepeatKey| {
        let kept =
            KeptAnswer { request_sha256: repeat.request_sha256.clone(), answer: answer.clone() };
        OnceKey {
            key: repeat.key.clone(),
            value: serde_json::to_string(&kept).unwrap_or_default(),
            seconds: repeat.seconds,
        }
    };
    repeats.iter().map(kept).collect()
}

/// Reads a kept answer.
///
/// # Errors
/// If the key was used for another request, or the kept answer is damaged.
pub(super) fn read_answer<T: DeserializeOwned>(
    kept: &str,
    repeat: &RepeatKey,
) -> Result<T, Refusal> {
    let kept: KeptAnswer =
        serde_json::from_str(kept).map_err(|e| StoreError::Damaged(e.to_string()))?;
    if kept.request_sha256 != repeat.request_sha256 {
        return Err(Refusal::KeyReused);
    }
    Ok(serde_json::from_value(kept.answer).map_err(|e| StoreError::Damaged(e.to_string()))?)
}
