//! Pause, resume and stop a delivery; retry a poisoned chunk.

use serde_json::json;

use crate::{
    deliveries::{Decision, Deliveries, IdempotencyKey, Refusal, RepeatKey, require},
    domain::{
        Principal, Role,
        delivery::{Action, DeliveryId, DeliveryState},
        ledger::ChunkRef,
    },
    send::release::FairQueue,
    store::{chunks::ChunkLists, limits::LimitStore},
};

/// A request of a person about a delivery. A stop may also end a preparation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    Pause,
    Resume,
    Stop,
}

impl Control {
    /// The word in the audit log.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Stop => "stop",
        }
    }
}

/// Carries out the requests of persons.
#[derive(Clone)]
pub struct Controls {
    pub deliveries: Deliveries,
    pub limits: LimitStore,
    pub chunks: ChunkLists,
    pub fair_queue: FairQueue,
}

impl Controls {
    /// Pauses, resumes or stops a delivery. Returns its new state.
    ///
    /// # Errors
    /// If the principal lacks the role, or the state does not allow the request.
    pub async fn control(
        &self,
        by: &Principal,
        id: &DeliveryId,
        control: Control,
        key: Option<&IdempotencyKey>,
    ) -> Result<DeliveryState, Refusal> {
        let repeats: Vec<RepeatKey> = key.iter().map(|key| RepeatKey::of(key, id)).collect();
        let changed = self
            .deliveries
            .change(id, by, &repeats, |delivery, now| {
                // a person who may prepare may also stop a preparation
                let role = if delivery.state == DeliveryState::Preparing {
                    Role::PrepareDeliveries
                } else {
                    Role::StartDeliveries
                };
                require(by, role)?;
                let started = delivery.document.has_started();
                let state = delivery.state.after(match control {
                    Control::Pause => Action::Pause,
                    Control::Resume => Action::Resume { started },
                    Control::Stop => Action::Stop,
                })?;
                let mut document = delivery.document.clone();
                document.changed_at = now;
                if control == Control::Resume {
                    // a person has looked at the delivery; if the part is still altered, the
                    // delivery is halted again
                    document.altered = None;
                }
                Ok(Decision {
                    state,
                    document,
                    answer: state,
                    act: Some((control.word(), json!({ "state": delivery.state.word() }))),
                })
            })
            .await?;
        if control == Control::Resume {
            // a person has looked at the delivery, so its circuit breaker need not stay open
            self.limits.close_delivery_breaker(id).await?;
            self.fair_queue.request_jobs(id).await?;
        }
        Ok(changed.answer())
    }

    /// Tries a poisoned chunk again. Returns the state of the delivery, which does not change.
    ///
    /// # Errors
    /// If the principal lacks the role, the chunk is not poisoned, or the delivery has ended.
    pub async fn retry_chunk(
        &self,
        by: &Principal,
        at: &ChunkRef,
        key: Option<&IdempotencyKey>,
    ) -> Result<DeliveryState, Refusal> {
        require(by, Role::StartDeliveries)?;
        let repeats: Vec<RepeatKey> =
            key.iter().map(|key| RepeatKey::of(key, &at.delivery)).collect();
        let is_poisoned = self.chunks.is_poisoned(at).await?;
        let changed = self
            .deliveries
            .change(&at.delivery, by, &repeats, |delivery, now| {
                if !is_poisoned || delivery.state.has_ended() {
                    return Err(Refusal::Conflict("this chunk is not set aside"));
                }
                let (state, mut document) = (delivery.state, delivery.document.clone());
                document.changed_at = now;
                Ok(Decision {
                    state,
                    document,
                    answer: state,
                    act: Some(("retry_chunk", json!({ "chunk": at.chunk }))),
                })
            })
            .await?;
        // a repeated request also does what a crash left undone
        if is_poisoned {
            self.chunks.retry_poisoned(at).await?;
            self.fair_queue.request_jobs(&at.delivery).await?;
        }
        Ok(changed.answer())
    }
}
