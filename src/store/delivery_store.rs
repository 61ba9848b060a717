//! Deliveries: reading, listing, and the compare-and-set that makes every change.

use std::sync::Arc;

use jiff::Timestamp;
use redis::{AsyncCommands, Script};
use serde::Serialize;

use super::{
    audit::sealed_text,
    connection::{Redis, StoreError, damaged},
    json_text::{json, text},
    keys,
    scripts::with_prelude,
};
use crate::domain::{
    delivery::{ALTERED_DOCUMENT, AuditEntry, Delivery, DeliveryId, DeliveryState, Document},
    seal::SealKey,
};

/// A key that is written together with a change. The change fails if the key exists already.
#[derive(Debug, Clone)]
pub struct OnceKey {
    pub key: String,
    pub value: String,
    /// Lifetime in seconds.
    pub seconds: u64,
}

/// A change of a delivery.
#[derive(Debug)]
pub struct DeliveryChange<'a> {
    pub id: &'a DeliveryId,
    /// The revision that the change is based on; 0 if the delivery must not exist yet.
    pub revision: u64,
    pub state: DeliveryState,
    pub document: &'a Document,
    /// The audit entry that is appended in the same step.
    pub entry: Option<&'a AuditEntry>,
    pub once: &'a [OnceKey],
}

/// The outcome of a change.
#[derive(Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// The change is made; this is the new revision.
    Done { revision: u64 },
    /// Somebody else changed the delivery meanwhile. The caller must read it again.
    Stale,
    /// One of the once-keys exists already: this change was made before, or another change used
    /// its key.
    Taken {
        /// Index in [`DeliveryChange::once`].
        key: usize,
        value: String,
    },
}

const OK: i64 = 0;
const LOST: i64 = 1;

/// Deliveries and their lists. Cheap to clone.
#[derive(Clone)]
pub struct DeliveryStore {
    pub(super) redis: Redis,
    pub(super) seals: SealKey,
    commit: Arc<Script>,
}

impl DeliveryStore {
    /// Makes the handle from a connection and the key of the seals.
    pub fn new(redis: Redis, seals: SealKey) -> Self {
        let commit = Arc::new(with_prelude(include_str!("commit_delivery.lua")));
        Self { redis, seals, commit }
    }

    /// The delivery with this id, also if it is deleted. A deleted delivery has no audience.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if what is stored cannot be read; [`StoreError::Altered`] if no
    /// daemon of this installation wrote it.
    pub async fn delivery(&self, id: &DeliveryId) -> Result<Option<Delivery>, StoreError> {
        match self.read(id).await? {
            Some((_, false)) => Err(StoreError::Altered(ALTERED_DOCUMENT.to_owned())),
            found => Ok(found.map(|(delivery, _)| delivery)),
        }
    }

    /// The delivery as it is stored, even if its seal does not fit. Nothing of it may be trusted.
    pub async fn delivery_unsealed(&self, id: &DeliveryId) -> Result<Option<Delivery>, StoreError> {
        Ok(self.read(id).await?.map(|(delivery, _)| delivery))
    }

    /// The delivery, and whether its seal fits.
    async fn read(&self, id: &DeliveryId) -> Result<Option<(Delivery, bool)>, StoreError> {
        type Fields = (Option<u64>, Option<String>, Option<String>, Option<Vec<u8>>);
        let (revision, state, document, seal): Fields = redis::cmd("HMGET")
            .arg(keys::delivery(id))
            .arg(&["revision", "state", "document", "seal"])
            .query_async(&mut self.redis.connection())
            .await?;
        let (Some(revision), Some(state), Some(document)) = (revision, state, document) else {
            return Ok(None);
        };
        let state: DeliveryState = state.parse().map_err(damaged)?;
        let is_genuine = seal.is_some_and(|seal| self.fits(id, state, &document, &seal));
        let document = json(&document)?;
        Ok(Some((Delivery { id: id.clone(), revision, state, document }, is_genuine)))
    }

    /// Whether a daemon wrote this document in this state. The script that releases waves changes
    /// the state and keeps the seal: the seal then is of an earlier state.
    fn fits(&self, id: &DeliveryId, state: DeliveryState, document: &str, seal: &[u8]) -> bool {
        let before: &[DeliveryState] = match state {
            DeliveryState::StartPending => &[DeliveryState::Scheduled, DeliveryState::Held],
            DeliveryState::Held => &[DeliveryState::Scheduled],
            _ => &[],
        };
        let is_sealed_in =
            |state: &DeliveryState| self.seals.fits(&sealed_parts(id, *state, document), seal);
        is_sealed_in(&state) || before.iter().any(is_sealed_in)
    }

    /// Seals a delivery as it is stored, unless it has a seal that fits. This is only for
    /// deliveries that were written before seals existed.
    pub(super) async fn seal_stored(&self, id: &DeliveryId) -> Result<(), StoreError> {
        let Some((delivery, false)) = self.read(id).await? else { return Ok(()) };
        let stored: String = self.redis.connection().hget(keys::delivery(id), "document").await?;
        let seal = self.seals.seal(&sealed_parts(id, delivery.state, &stored));
        Ok(self.redis.connection().hset(keys::delivery(id), "seal", &seal[..]).await?)
    }

    /// Only the state of a delivery, which is cheaper than the delivery.
    pub async fn state(&self, id: &DeliveryId) -> Result<Option<DeliveryState>, StoreError> {
        let state: Option<String> =
            self.redis.connection().hget(keys::delivery(id), "state").await?;
        state.map(|s| s.parse().map_err(damaged)).transpose()
    }

    /// Makes a change, unless somebody else changed the delivery since `change.revision`.
    ///
    /// The lists of deliveries are hints. This function puts the delivery on its lists before the
    /// change, so that a crash in between loses nothing. Other steps take it off later.
    pub async fn commit(&self, change: &DeliveryChange<'_>) -> Result<CommitOutcome, StoreError> {
        self.list_before(change).await?;
        let mut conn = self.redis.connection();
        let wakes = change.document.wakes_at(change.state);
        let mut script = self.commit.prepare_invoke();
        script.key(keys::delivery(change.id)).key(keys::audit(change.id));
        let document = text(change.document)?;
        let seal = self.seals.seal(&sealed_parts(change.id, change.state, &document));
        script.arg(change.revision).arg(change.state.word()).arg(document);
        let entry = change.entry.map(|e| sealed_text(&self.seals, change.id.as_str(), e));
        script.arg(entry.transpose()?.unwrap_or_default());
        script.arg(wakes.map(|at| at.as_second().to_string()).unwrap_or_default());
        for once in change.once {
            script.key(&once.key).arg(&once.value).arg(once.seconds);
        }
        script.arg(&seal[..]);
        script.arg(change.document.definition.unit.as_deref().unwrap_or_default());
        script.arg(change.document.plan.as_ref().map_or(0, |plan| plan.generation));
        let (verdict, number, value): (i64, u64, Option<String>) =
            script.invoke_async(&mut conn).await?;
        match (verdict, value) {
            (OK, _) => {
                if change.state.is_moving() {
                    // A reconciler that still saw the old state may have removed the delivery from
                    // the set. So it is added once more. If that fails, the index sweep finds it.
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

    /// Puts a delivery on the lists of its new state.
    async fn list_before(&self, change: &DeliveryChange<'_>) -> Result<(), StoreError> {
        let mut conn = self.redis.connection();
        if change.revision == 0 {
            let mut list = redis::cmd("ZADD");
            // NX: a delivery on the list keeps its place.
            list.arg(keys::DELIVERIES)
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
        Ok(())
    }

    /// Notes when the scheduler must look at a template or an occurrence next; `None` means never.
    pub async fn list_recurrence(
        &self,
        id: &DeliveryId,
        at: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let mut conn = self.redis.connection();
        match at {
            Some(at) => conn.zadd(keys::RECURRING, id.as_str(), at.as_second()).await?,
            None => conn.zrem(keys::RECURRING, id.as_str()).await?,
        }
        Ok(())
    }

    /// At most `limit` ids of deliveries, from `offset`, the newest first.
    pub async fn delivery_ids(
        &self,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<DeliveryId>, StoreError> {
        let to = (offset + limit).saturating_sub(1) as isize;
        let ids: Vec<String> =
            self.redis.connection().zrevrange(keys::DELIVERIES, offset as isize, to).await?;
        ids.iter().map(|id| id.parse().map_err(damaged)).collect()
    }

    /// The states of some deliveries; `None` where there is no such delivery.
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

    /// Ids of the moving deliveries: those that the daemon moves on by itself.
    pub async fn moving(&self) -> Result<Vec<DeliveryId>, StoreError> {
        let ids: Vec<String> = self.redis.connection().smembers(keys::MOVING).await?;
        ids.iter().map(|id| id.parse().map_err(damaged)).collect()
    }

    /// Adds a delivery to the set of moving deliveries.
    pub async fn list_moving(&self, id: &DeliveryId) -> Result<(), StoreError> {
        Ok(self.redis.connection().sadd(keys::MOVING, id.as_str()).await?)
    }

    /// Removes a delivery that is at rest from the set of moving deliveries.
    pub async fn unlist_moving(&self, id: &DeliveryId) -> Result<(), StoreError> {
        Ok(self.redis.connection().srem(keys::MOVING, id.as_str()).await?)
    }

    /// Removes a deleted delivery from the list of all deliveries.
    pub async fn unlist(&self, id: &DeliveryId) -> Result<(), StoreError> {
        Ok(self.redis.connection().zrem(keys::DELIVERIES, id.as_str()).await?)
    }

    /// The value of a key that expires, such as an idempotent answer or the outcome of a job.
    pub async fn once(&self, key: &str) -> Result<Option<String>, StoreError> {
        Ok(self.redis.connection().get(key).await?)
    }

    /// Keeps the outcome of a job for its producer, for so many seconds.
    pub async fn keep_outcome(
        &self,
        job: &str,
        outcome: &impl Serialize,
        seconds: u64,
    ) -> Result<(), StoreError> {
        Ok(self.redis.connection().set_ex(keys::outcome(job), text(outcome)?, seconds).await?)
    }

    /// Keeps an outcome for a dead job, unless it has one. Returns whether it was kept.
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

/// The parts that the seal of a document covers.
fn sealed_parts<'a>(id: &'a DeliveryId, state: DeliveryState, document: &'a str) -> [&'a [u8]; 4] {
    [b"delivery", id.as_str().as_bytes(), state.word().as_bytes(), document.as_bytes()]
}
