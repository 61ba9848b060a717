//! Deliveries: read, list, and the one compare-and-set through which everything changes.

use std::sync::Arc;

use redis::{AsyncCommands, Script};
use serde::{Serialize, de::DeserializeOwned};

use super::connection::{Redis, StoreError, damaged, unreadable, with_prelude};
use crate::{
    domain::delivery::{AuditEntry, Delivery, DeliveryId, DeliveryState, Document},
    store::keys,
};

/// A key that is written together with a change, and must not be there before.
#[derive(Debug, Clone)]
pub struct OnceKey {
    pub key: String,
    pub value: String,
    pub seconds: u64,
}

/// A change of a delivery at `revision` (0: it must not exist).
#[derive(Debug)]
pub struct DeliveryChange<'a> {
    pub id: &'a DeliveryId,
    pub revision: u64,
    pub state: DeliveryState,
    pub document: &'a Document,
    pub entry: Option<&'a AuditEntry>,
    pub once: &'a [OnceKey],
}

/// What became of a change.
#[derive(Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    Done {
        revision: u64,
    },
    /// Somebody else changed it meanwhile: read again.
    Stale,
    /// One of the keys was there, with this value: the change was made before, or its key was used for another.
    Taken {
        key: usize,
        value: String,
    },
}

const OK: i64 = 0;
const LOST: i64 = 1;

/// Documents, index and audit chains of the deliveries. Cheap to clone.
#[derive(Clone)]
pub struct DeliveryStore {
    pub(in crate::store) redis: Redis,
    pub(in crate::store) scripts: Arc<DeliveryScripts>,
}

pub(in crate::store) struct DeliveryScripts {
    pub(in crate::store) commit: Script,
    pub(in crate::store) append: Script,
}

impl Default for DeliveryScripts {
    fn default() -> Self {
        Self {
            commit: with_prelude(include_str!("commit_delivery.lua")),
            append: with_prelude(include_str!("append_audit_head.lua")),
        }
    }
}

impl DeliveryStore {
    pub fn new(redis: Redis) -> Self {
        Self { redis, scripts: Arc::default() }
    }
}

impl DeliveryStore {
    /// The delivery, or `None` if there is none of that id. A deleted one is still there, as a tombstone.
    pub async fn delivery(&self, id: &DeliveryId) -> Result<Option<Delivery>, StoreError> {
        let (revision, state, document): (Option<u64>, Option<String>, Option<String>) =
            redis::cmd("HMGET")
                .arg(keys::delivery(id))
                .arg(&["revision", "state", "document"])
                .query_async(&mut self.redis.connection())
                .await?;
        let (Some(revision), Some(state), Some(document)) = (revision, state, document) else {
            return Ok(None);
        };
        let state = state.parse().map_err(damaged)?;
        Ok(Some(Delivery { id: id.clone(), revision, state, document: json(&document)? }))
    }

    /// Only the state, for those who ask often.
    pub async fn state(&self, id: &DeliveryId) -> Result<Option<DeliveryState>, StoreError> {
        let state: Option<String> =
            self.redis.connection().hget(keys::delivery(id), "state").await?;
        state.map(|s| s.parse().map_err(damaged)).transpose()
    }

    /// Makes a change if nobody else made one since `revision`. The hints are written before and removed after.
    pub async fn commit(&self, change: &DeliveryChange<'_>) -> Result<CommitOutcome, StoreError> {
        let mut conn = self.redis.connection();
        if change.revision == 0 {
            let mut list = redis::cmd("ZADD");
            // one that is there already keeps its place
            list.arg(keys::INDEX)
                .arg("NX")
                .arg(change.document.created_at.as_millisecond())
                .arg(change.id.as_str());
            let () = list.query_async(&mut conn).await?;
        }
        if change.state.is_moving() {
            let () = conn.sadd(keys::MOVING, change.id.as_str()).await?;
        }
        if change.state == DeliveryState::Scheduled {
            let due = change
                .document
                .plan
                .as_ref()
                .and_then(|plan| plan.first_due)
                .map_or(0, |due| due.as_second());
            let () = conn.zadd(keys::DUE, change.id.as_str(), due).await?;
        }
        let wakes = change.document.wakes_at(change.state);
        if wakes.is_some() {
            self.list_recurrence(change.id, wakes).await?;
        }
        let mut script = self.scripts.commit.prepare_invoke();
        script.key(keys::delivery(change.id)).key(keys::audit(change.id));
        script.arg(change.revision).arg(change.state.word()).arg(text(change.document)?);
        script.arg(change.entry.map(text).transpose()?.unwrap_or_default());
        script.arg(wakes.map(|at| at.as_second().to_string()).unwrap_or_default());
        for once in change.once {
            script.key(&once.key).arg(&once.value).arg(once.seconds);
        }
        script.arg(change.document.plan.as_ref().map_or(0, |plan| plan.generation));
        let (verdict, number, value): (i64, u64, Option<String>) =
            script.invoke_async(&mut conn).await?;
        match (verdict, value) {
            (OK, _) => {
                if change.state.is_moving() {
                    // a reconciler that still saw the old state may have taken it off the list; if this fails, too, the
                    // slow pass finds it
                    let _: redis::RedisResult<()> =
                        conn.sadd(keys::MOVING, change.id.as_str()).await;
                }
                Ok(CommitOutcome::Done { revision: number })
            }
            (LOST, _) => Ok(CommitOutcome::Stale),
            (_, value) => {
                Ok(CommitOutcome::Taken { key: number as usize, value: value.unwrap_or_default() })
            }
        }
    }

    /// Ids of the deliveries, newest first, from `offset`.
    pub async fn delivery_ids(
        &self,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<DeliveryId>, StoreError> {
        let to = (offset + limit).saturating_sub(1) as isize;
        let ids: Vec<String> =
            self.redis.connection().zrevrange(keys::INDEX, offset as isize, to).await?;
        ids.iter().map(|id| id.parse().map_err(damaged)).collect()
    }

    /// States of some deliveries; `None` for those that are not there.
    pub async fn states(
        &self,
        ids: &[DeliveryId],
    ) -> Result<Vec<Option<DeliveryState>>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        for id in ids {
            pipe.hget(keys::delivery(id), "state");
        }
        let words: Vec<Option<String>> = pipe.query_async(&mut self.redis.connection()).await?;
        words.into_iter().map(|word| word.map(|w| w.parse().map_err(damaged)).transpose()).collect()
    }

    /// Ids of the deliveries that the daemon moves on.
    pub async fn moving(&self) -> Result<Vec<DeliveryId>, StoreError> {
        let ids: Vec<String> = self.redis.connection().smembers(keys::MOVING).await?;
        ids.iter().map(|id| id.parse().map_err(damaged)).collect()
    }

    /// Puts a delivery on the list of moving ones.
    pub async fn list_moving(&self, id: &DeliveryId) -> Result<(), StoreError> {
        Ok(self.redis.connection().sadd(keys::MOVING, id.as_str()).await?)
    }

    /// Takes a delivery that has come to rest off the list of moving ones.
    pub async fn unlist_moving(&self, id: &DeliveryId) -> Result<(), StoreError> {
        Ok(self.redis.connection().srem(keys::MOVING, id.as_str()).await?)
    }

    /// Takes a deleted delivery off the list.
    pub async fn unlist(&self, id: &DeliveryId) -> Result<(), StoreError> {
        Ok(self.redis.connection().zrem(keys::INDEX, id.as_str()).await?)
    }

    /// The value of a key that was written once, such as an idempotent answer.
    pub async fn once(&self, key: &str) -> Result<Option<String>, StoreError> {
        Ok(self.redis.connection().get(key).await?)
    }

    /// Leaves the outcome of a job where its producer can read it.
    pub async fn keep_outcome(
        &self,
        job: &str,
        outcome: &impl Serialize,
        seconds: u64,
    ) -> Result<(), StoreError> {
        Ok(self.redis.connection().set_ex(keys::outcome(job), text(outcome)?, seconds).await?)
    }

    /// Leaves an outcome for a job that has none; false if it has.
    pub async fn keep_outcome_of_dead(
        &self,
        job: &str,
        outcome: &impl Serialize,
        seconds: u64,
    ) -> Result<bool, StoreError> {
        let mut set = redis::cmd("SET");
        set.arg(keys::outcome(job)).arg(text(outcome)?).arg("NX").arg("EX").arg(seconds);
        let kept: Option<String> = set.query_async(&mut self.redis.connection()).await?;
        Ok(kept.is_some())
    }
}
pub(super) fn text(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(damaged)
}

pub(super) fn json<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(unreadable)
}
