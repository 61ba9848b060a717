//! Changing a delivery: read, decide, compare-and-set with its audit entry; again if somebody else was faster.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::refusal::Refusal;
use crate::{
    domain::{
        Principal, Role,
        delivery::{
            Action, AuditAct, AuditEntry, AuditHead, Delivery, DeliveryId, DeliveryState, Document,
        },
    },
    store::{CommitOutcome, DeliveryChange, DeliveryStore, OnceKey, Redis, StoreError, keys},
};

/// How long an idempotency key repeats its answer.
const KEY_SECONDS: u64 = 24 * 3600;
/// Vain tries to append to a chain of heads that does not grow, before it is called damaged.
const TRIES: u32 = 3;

/// An `Idempotency-Key` with the request it came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The principal's own: others' keys do not collide with it.
    pub principal: String,
    pub key: String,
    /// Of action and body.
    pub request_sha256: String,
}

impl IdempotencyKey {
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

/// What makes a repeated request give its first answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepeatKey {
    /// Where the answer is kept.
    pub key: String,
    pub request_sha256: String,
    pub seconds: u64,
}

impl RepeatKey {
    pub fn of(key: &IdempotencyKey, id: &DeliveryId) -> Self {
        Self {
            key: key.redis_key(id),
            request_sha256: key.request_sha256.clone(),
            seconds: KEY_SECONDS,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct KeptAnswer {
    request_sha256: String,
    answer: Value,
}

/// A decision: the state and document to come, and what the caller is told.
#[derive(Debug)]
pub struct Decision<T> {
    pub state: DeliveryState,
    pub document: Document,
    pub answer: T,
    /// What the audit log says; `None` for steps that the daemon takes by itself.
    pub act: Option<(&'static str, Value)>,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed<T> {
    Now(T),
    /// An earlier request with the same key had this answer.
    Before(T),
}

impl<T> Changed<T> {
    pub fn answer(self) -> T {
        match self {
            Self::Now(answer) | Self::Before(answer) => answer,
        }
    }
}

/// Refuses a principal without `role`.
pub fn require(principal: &Principal, role: Role) -> Result<(), Refusal> {
    if principal.may(role) { Ok(()) } else { Err(Refusal::MissingRole(role)) }
}

#[derive(Clone)]
pub struct Deliveries {
    pub store: DeliveryStore,
    pub redis: Redis,
    pub heads_damaged: Arc<AtomicBool>,
}

impl Deliveries {
    /// The delivery, if it is there and was not deleted.
    pub async fn delivery(&self, id: &DeliveryId) -> Result<Delivery, Refusal> {
        match self.store.delivery(id).await? {
            Some(delivery) if delivery.state != DeliveryState::Deleted => Ok(delivery),
            _ => Err(Refusal::NotFound),
        }
    }

    /// The same, if it has its logs yet.
    pub async fn delivery_with_logs(&self, id: &DeliveryId) -> Result<Delivery, Refusal> {
        let delivery = self.delivery(id).await?;
        match &delivery.document.cleaned {
            Some(cleaned) => Err(Refusal::Cleaned(cleaned.cleaned_at)),
            None => Ok(delivery),
        }
    }

    /// The same, if it has its logs and its tracking log yet.
    pub async fn delivery_with_tracking(&self, id: &DeliveryId) -> Result<Delivery, Refusal> {
        let delivery = self.delivery_with_logs(id).await?;
        match delivery.document.tracking_cleaned_at {
            Some(cleaned_at) => Err(Refusal::TrackingCleaned(cleaned_at)),
            None => Ok(delivery),
        }
    }

    /// Changes a delivery by what `decide` makes of it.
    pub async fn change<T, D>(
        &self,
        id: &DeliveryId,
        by: &str,
        repeats: &[RepeatKey],
        decide: D,
    ) -> Result<Changed<T>, Refusal>
    where
        T: Serialize + DeserializeOwned,
        D: Fn(&Delivery, Timestamp) -> Result<Decision<T>, Refusal>,
    {
        loop {
            if let Some(before) = self.first_answer(repeats).await? {
                self.redis.await_durability().await?;
                return Ok(before);
            }
            let delivery = self.delivery(id).await?;
            let now = Timestamp::now();
            let decision = match decide(&delivery, now) {
                Ok(decision) => decision,
                // the very same request may have been faster: its key and its effect are written in one step
                Err(refusal) => {
                    let before = self.first_answer(repeats).await?.ok_or(refusal)?;
                    self.redis.await_durability().await?;
                    return Ok(before);
                }
            };
            let asked = decision.act.is_some();
            let Some(changed) =
                self.commit(&delivery.id, delivery.revision, by, repeats, decision).await?
            else {
                continue;
            };
            if asked {
                // what was answered must not be undone by a crash of Redis
                self.redis.await_durability().await?;
            }
            return Ok(changed);
        }
    }

    /// What an earlier request with one of these keys was answered.
    pub(crate) async fn first_answer<T: DeserializeOwned>(
        &self,
        repeats: &[RepeatKey],
    ) -> Result<Option<Changed<T>>, Refusal> {
        for repeat in repeats {
            if let Some(kept) = self.store.once(&repeat.key).await? {
                return first_answer(&kept, repeat).map(Some);
            }
        }
        Ok(None)
    }

    /// Writes a decision; `None` if somebody else was faster.
    pub(crate) async fn commit<T>(
        &self,
        id: &DeliveryId,
        revision: u64,
        by: &str,
        repeats: &[RepeatKey],
        decision: Decision<T>,
    ) -> Result<Option<Changed<T>>, Refusal>
    where
        T: Serialize + DeserializeOwned,
    {
        let Decision { state, mut document, answer, act } = decision;
        let entry = act.map(|(action, details)| {
            let act =
                AuditAct { subject: id.to_string(), principal: by.to_owned(), action, details };
            AuditEntry::after(&document.audit, Timestamp::now(), act)
        });
        if let Some(entry) = &entry {
            document.audit = entry.head();
        }
        let value =
            serde_json::to_value(&answer).map_err(|e| StoreError::Damaged(e.to_string()))?;
        let once: Vec<OnceKey> = repeats
            .iter()
            .map(|r| {
                let kept =
                    KeptAnswer { request_sha256: r.request_sha256.clone(), answer: value.clone() };
                OnceKey {
                    key: r.key.clone(),
                    value: serde_json::to_string(&kept).unwrap_or_default(),
                    seconds: r.seconds,
                }
            })
            .collect();
        let change = DeliveryChange {
            id,
            revision,
            state,
            document: &document,
            entry: entry.as_ref(),
            once: &once,
        };
        match self.store.commit(&change).await? {
            CommitOutcome::Done { .. } => {
                if entry.is_some()
                    && let Err(error) = self.note_head(id, &document.audit).await
                {
                    // the reconciler notes it later
                    tracing::warn!(delivery.id = %id, %error, "the head of the audit chain is not noted yet");
                }
                Ok(Some(Changed::Now(answer)))
            }
            CommitOutcome::Stale => Ok(None),
            CommitOutcome::Taken { key, value } => match repeats.get(key) {
                Some(repeat) => first_answer(&value, repeat).map(Some),
                None => Ok(None),
            },
        }
    }

    /// Appends the head of a delivery's audit chain to the chain of heads, so that a chain that was cut short is noticed. A
    /// chain of heads that was changed by hand takes no more of them; that is said once, and everything else goes on.
    pub(crate) async fn note_head(
        &self,
        id: &DeliveryId,
        head: &AuditHead,
    ) -> Result<(), StoreError> {
        match self.append_head(id, head).await {
            Err(StoreError::Damaged(what)) => {
                if !self.heads_damaged.swap(true, Ordering::Relaxed) {
                    tracing::error!(
                        what,
                        "the chain of audit heads takes no more heads: verify the audit log"
                    );
                }
                Ok(())
            }
            appended => appended,
        }
    }

    async fn append_head(&self, id: &DeliveryId, head: &AuditHead) -> Result<(), StoreError> {
        let (mut length, mut tries) = (None, 0);
        while self.store.noted_head(id).await? < head.seq {
            let details = serde_json::json!({ "seq": head.seq, "hash": head.hash });
            let act = AuditAct {
                subject: id.to_string(),
                principal: "versand".into(),
                action: "head",
                details,
            };
            let last =
                self.store.last_audit_head().await?.map(|entry| entry.head()).unwrap_or_default();
            // whoever was faster has made the chain longer
            tries = if length == Some(last.seq) { tries + 1 } else { 0 };
            length = Some(last.seq);
            if tries == TRIES {
                return Err(StoreError::Damaged(
                    "its last head has not the number of its place".into(),
                ));
            }
            self.store
                .append_audit_head(&AuditEntry::after(&last, Timestamp::now(), act), head.seq)
                .await?;
        }
        Ok(())
    }

    /// A step of the daemon itself: a transition without an audit entry. False if it is not its turn any more.
    pub async fn step(
        &self,
        id: &DeliveryId,
        action: Action,
        alter: impl Fn(&mut Document, Timestamp),
    ) -> Result<bool, Refusal> {
        let stepped = self
            .change(id, "versand", &[], |delivery, now| {
                let state = delivery.state.after(action)?;
                let mut document = delivery.document.clone();
                alter(&mut document, now);
                Ok(Decision { state, document, answer: (), act: None })
            })
            .await;
        match stepped {
            Ok(_) => Ok(true),
            Err(Refusal::Illegal(_) | Refusal::NotFound) => Ok(false),
            Err(other) => Err(other),
        }
    }
}

fn first_answer<T: DeserializeOwned>(
    kept: &str,
    repeat: &RepeatKey,
) -> Result<Changed<T>, Refusal> {
    let kept: KeptAnswer =
        serde_json::from_str(kept).map_err(|e| StoreError::Damaged(e.to_string()))?;
    if kept.request_sha256 != repeat.request_sha256 {
        return Err(Refusal::KeyReused);
    }
    Ok(Changed::Before(
        serde_json::from_value(kept.answer).map_err(|e| StoreError::Damaged(e.to_string()))?,
    ))
}
