//! What all daemons know about bearer tokens: which are revoked, and when each was used last.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use redis::AsyncCommands;
use serde::{Deserialize, Serialize};

use super::{
    connection::{Redis, StoreError},
    json_text::{json, text},
    keys,
};

/// How often a process notes the use of one token.
const NOTED_EVERY: Duration = Duration::from_secs(60);

/// Who revoked a token, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    pub at: Timestamp,
    pub by: String,
}

/// Revocations and uses of bearer tokens. Cheap to clone.
///
/// A revocation is bound to the SHA-256 of the token. A new secret under the same name works.
#[derive(Clone)]
pub struct TokenStore {
    redis: Redis,
    /// When this process noted the use of each token.
    noted: Arc<Mutex<HashMap<String, Instant>>>,
}

impl TokenStore {
    /// Makes the handle from a connection.
    pub fn new(redis: Redis) -> Self {
        Self { redis, noted: Arc::default() }
    }

    /// Whether the token with this SHA-256 is revoked.
    pub async fn is_revoked(&self, sha256: &str) -> Result<bool, StoreError> {
        Ok(self.redis.connection().hexists(keys::REVOKED_TOKENS, sha256).await?)
    }

    /// Revokes a token. Returns once no crash can undo that. A token that is revoked already keeps
    /// its first revocation.
    pub async fn revoke(&self, sha256: &str, revocation: &Revocation) -> Result<(), StoreError> {
        let mut conn = self.redis.connection();
        let _: bool = conn.hset_nx(keys::REVOKED_TOKENS, sha256, text(revocation)?).await?;
        self.redis.await_durability().await
    }

    /// Notes that a token was used now (Unix seconds). Each process writes once a minute at most
    /// for each token.
    pub async fn note_use(&self, sha256: &str, now: u32) -> Result<(), StoreError> {
        {
            let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
            if noted.get(sha256).is_some_and(|at| at.elapsed() < NOTED_EVERY) {
                return Ok(());
            }
            noted.insert(sha256.to_owned(), Instant::now());
        }
        Ok(self.redis.connection().hset(keys::USED_TOKENS, sha256, now).await?)
    }

    /// The last use (Unix seconds) and the revocation of each token, by their SHA-256.
    pub async fn standings(
        &self,
        tokens: &[String],
    ) -> Result<Vec<(Option<u32>, Option<Revocation>)>, StoreError> {
        if tokens.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        pipe.cmd("HMGET").arg(keys::USED_TOKENS).arg(tokens);
        pipe.cmd("HMGET").arg(keys::REVOKED_TOKENS).arg(tokens);
        let (used, revoked): (Vec<Option<u32>>, Vec<Option<String>>) =
            pipe.query_async(&mut self.redis.connection()).await?;
        let read = |(used, revoked): (Option<u32>, Option<String>)| {
            Ok((used, revoked.map(|text| json(&text)).transpose()?))
        };
        used.into_iter().zip(revoked).map(read).collect()
    }
}
