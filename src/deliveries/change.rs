//! Reads and changes deliveries: read, decide, compare-and-set with the audit entry.
//!
//! If somebody else was faster, all three are repeated.

use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    actor::Actor,
    refusal::Refusal,
    repeat_key::{RepeatKey, kept_answers, read_answer},
    step_log::log_step,
};
use crate::{
    audit::AuditHeads,
    domain::{
        Principal, Role,
        delivery::{
            Action, Alteration, AuditAct, AuditEntry, Delivery, DeliveryId, DeliveryState,
            Document, may_follow,
        },
    },
    metrics,
    store::{CommitOutcome, DeliveryChange, DeliveryStore, Redis, StoreError, hold::HoldStore},
};

/// A decision: the next state and document, and the answer to the caller.
#[derive(Debug)]
pub struct Decision<T> {
    pub state: DeliveryState,
    pub document: Document,
    pub answer: T,
    /// Action and details of the audit entry. `None` writes no entry, as for most steps of the
    /// daemon itself.
    pub act: Option<(&'static str, Value)>,
}

/// The answer to a change, and whether this request or an earlier one made the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed<T> {
    /// This request made the change.
    Now(T),
    /// An earlier request with the same key got this answer.
    Before(T),
}

impl<T> Changed<T> {
    /// The answer, whichever request made the change.
    pub fn answer(self) -> T {
        match self {
            Self::Now(answer) | Self::Before(answer) => answer,
        }
    }
}

/// Refuses a principal without `role`.
///
/// # Errors
/// [`Refusal::MissingRole`]
pub fn require(principal: &Principal, role: Role) -> Result<(), Refusal> {
    if principal.may(role) { Ok(()) } else { Err(Refusal::MissingRole(role)) }
}

/// The state to which a delivery in `state` is brought, so that nothing more is begun.
fn at_rest(state: DeliveryState) -> DeliveryState {
    let action = if state == DeliveryState::Preparing { Action::Stop } else { Action::Pause };
    state.after(action).unwrap_or(state)
}

/// Reads deliveries and changes them.
#[derive(Clone)]
pub struct Deliveries {
    pub store: DeliveryStore,
    pub redis: Redis,
    pub holds: HoldStore,
    pub heads: AuditHeads,
}

impl Deliveries {
    /// The delivery.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if the delivery does not exist or was deleted; if Redis does not
    /// answer.
    pub async fn delivery(&self, id: &DeliveryId) -> Result<Delivery, Refusal> {
        match self.read(id).await? {
            Some(delivery) if delivery.state != DeliveryState::Deleted => Ok(delivery),
            _ => Err(Refusal::NotFound),
        }
    }

    /// The delivery, also if it is deleted. If no daemon of this installation wrote what is
    /// stored, the delivery is halted first: then its document says so.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn read(&self, id: &DeliveryId) -> Result<Option<Delivery>, StoreError> {
        match self.store.delivery(id).await {
            Err(StoreError::Altered(part)) => {
                // in a box, because this is rare and the future is large
                Box::pin(self.halt_altered(id, &part)).await?;
                self.store.delivery(id).await
            }
            found => found,
        }
    }

    /// The delivery, if it still has its logs.
    ///
    /// # Errors
    /// [`Refusal::Cleaned`] if the logs were removed; as for [`Deliveries::delivery`].
    pub async fn delivery_with_logs(&self, id: &DeliveryId) -> Result<Delivery, Refusal> {
        let delivery = self.delivery(id).await?;
        match &delivery.document.cleaned {
            Some(cleaned) => Err(Refusal::Cleaned(cleaned.cleaned_at)),
            None => Ok(delivery),
        }
    }

    /// The delivery, if it still has its logs and its tracking log.
    ///
    /// # Errors
    /// [`Refusal::TrackingCleaned`] or [`Refusal::Cleaned`] if a log was removed; as for
    /// [`Deliveries::delivery`].
    pub async fn delivery_with_tracking(&self, id: &DeliveryId) -> Result<Delivery, Refusal> {
        let delivery = self.delivery_with_logs(id).await?;
        match delivery.document.tracking_cleaned_at {
            Some(cleaned_at) => Err(Refusal::TrackingCleaned(cleaned_at)),
            None => Ok(delivery),
        }
    }

    /// Brings a delivery to rest, because no daemon of this installation wrote its `part`. Logs,
    /// counts and audits the alteration once.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn halt_altered(&self, id: &DeliveryId, part: &str) -> Result<(), StoreError> {
        loop {
            let Some(delivery) = self.store.delivery_unsealed(id).await? else { return Ok(()) };
            // another task or daemon may have been faster
            if delivery.document.altered.is_some() && self.is_genuine(id).await? {
                return Ok(());
            }
            let (before, state) = (delivery.state.word(), at_rest(delivery.state));
            let mut document = delivery.document.clone();
            document.altered =
                Some(Alteration { part: part.to_owned(), found_at: Timestamp::now() });
            let act = Some(("altered", json!({ "part": part, "state": before })));
            let decision = Decision { state, document, answer: (), act };
            let committed = self.commit(id, Some(&delivery), "versand", &[], decision).await;
            let committed = committed.map_err(|refusal| match refusal {
                Refusal::Unavailable(error) => error,
                other => StoreError::Damaged(other.to_string()),
            });
            if committed?.is_some() {
                metrics::altered();
                tracing::error!(
                    delivery.id = %id,
                    part,
                    "this delivery was altered in Redis by somebody without the key of the \
                     installation: it is not sent"
                );
                return Ok(());
            }
        }
    }

    async fn is_genuine(&self, id: &DeliveryId) -> Result<bool, StoreError> {
        match self.store.delivery(id).await {
            Err(StoreError::Altered(_)) => Ok(false),
            found => found.map(|_| true),
        }
    }

    /// Waits until no crash or fail-over of Redis can undo the writes so far.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn await_durability(&self) -> Result<(), StoreError> {
        self.redis.await_durability().await
    }

    /// Whether the store is held: then nothing moves until a person releases it.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn store_is_held(&self) -> Result<bool, StoreError> {
        Ok(self.holds.current().await?.is_some())
    }

    /// Refuses a request that would move something while the store is held.
    ///
    /// # Errors
    /// [`Refusal::Conflict`] while the store is held; if Redis does not answer.
    pub async fn require_moving_store(&self) -> Result<(), Refusal> {
        match self.store_is_held().await? {
            false => Ok(()),
            true => Err(Refusal::Conflict(
                "the store may be behind and is held: a person must release it first \
                 (GET /api/v1/store)",
            )),
        }
    }

    /// Changes a delivery as `decide` says. A repeated request gets its first answer.
    ///
    /// `by` is who stands in the audit log. `decide` may be called more than once.
    ///
    /// # Errors
    /// The refusal of `decide` or of [`Actor::check`]; [`Refusal::NotFound`];
    /// [`Refusal::KeyReused`]; [`Refusal::Altered`] if an altered document forbids the next state;
    /// if Redis does not answer.
    pub async fn change<'a, T, D>(
        &self,
        id: &DeliveryId,
        by: impl Into<Actor<'a>>,
        repeats: &[RepeatKey],
        decide: D,
    ) -> Result<Changed<T>, Refusal>
    where
        T: Serialize + DeserializeOwned,
        D: Fn(&Delivery, Timestamp) -> Result<Decision<T>, Refusal>,
    {
        let by = by.into();
        loop {
            if let Some(before) = self.first_answer(repeats).await? {
                self.await_durability().await?;
                return Ok(before);
            }
            let delivery = self.delivery(id).await?;
            let now = Timestamp::now();
            let decision = match by.check(&delivery).and_then(|()| decide(&delivery, now)) {
                Ok(decision) => decision,
                // A repeat of this request may have been faster. One script wrote the repeat's
                // change and key together, so its answer is found now.
                Err(refusal) => {
                    let before = self.first_answer(repeats).await?.ok_or(refusal)?;
                    self.await_durability().await?;
                    return Ok(before);
                }
            };
            if !may_follow(&delivery, decision.state) {
                return Err(Refusal::Altered);
            }
            let is_requested = decision.act.is_some();
            let Some(changed) =
                self.commit(&delivery.id, Some(&delivery), by.name(), repeats, decision).await?
            else {
                continue;
            };
            if is_requested {
                // no crash of Redis may undo what was answered
                self.await_durability().await?;
            }
            return Ok(changed);
        }
    }

    /// The answer to an earlier request with one of these keys, if there was one.
    ///
    /// # Errors
    /// [`Refusal::KeyReused`] if a key was used for another request; if the kept answer is damaged;
    /// if Redis does not answer.
    pub(crate) async fn first_answer<T: DeserializeOwned>(
        &self,
        repeats: &[RepeatKey],
    ) -> Result<Option<Changed<T>>, Refusal> {
        for repeat in repeats {
            if let Some(kept) = self.store.once(&repeat.key).await? {
                return Ok(Some(Changed::Before(read_answer(&kept, repeat)?)));
            }
        }
        Ok(None)
    }

    /// Writes a decision if the delivery is still as `before`, or still unknown if `before` is
    /// `None`. If a repeat of this request was faster, returns its answer. Returns `None` if
    /// somebody else was faster.
    pub(crate) async fn commit<T>(
        &self,
        id: &DeliveryId,
        before: Option<&Delivery>,
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
        let once = kept_answers(repeats, &value);
        let change = DeliveryChange {
            id,
            revision: before.map_or(0, |before| before.revision),
            state,
            document: &document,
            entry: entry.as_ref(),
            once: &once,
        };
        match self.store.commit(&change).await? {
            CommitOutcome::Done { .. } => {
                let before = before.map(|before| before.state);
                log_step(id, by, before, (state, &document), entry.as_ref());
                if entry.is_some()
                    && let Err(error) = self.heads.note(id, &document.audit).await
                {
                    error.log_failed_pass(
                        "the audit head is not noted: the reconciler or the next change notes it",
                    );
                }
                Ok(Some(Changed::Now(answer)))
            }
            CommitOutcome::Stale => Ok(None),
            CommitOutcome::Taken { key, value } => match repeats.get(key) {
                Some(repeat) => Ok(Some(Changed::Before(read_answer(&value, repeat)?))),
                None => Ok(None),
            },
        }
    }

    /// A step of the daemon itself: a transition without an audit entry. Returns false if the state
    /// no longer allows the step, or the delivery is gone.
    ///
    /// # Errors
    /// [`Refusal::Altered`] if an altered document forbids the state; if Redis does not answer.
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
