//! TODO head

use serde_json::json;

use super::in_doubt::Control;
use crate::{
    deliveries::{Decision, Deliveries, IdempotencyKey, Refusal, RepeatKey, require},
    domain::{
        Principal, Role,
        delivery::{Action, DeliveryId, DeliveryState},
        ledger::ChunkRef,
    },
    send::release::FairQueue,
    store::limits::LimitStore,
};

#[derive(Clone)]
pub struct Controls {
    pub deliveries: Deliveries,
    pub limits: LimitStore,
    pub fair_queue: FairQueue,
}

impl Controls {
    /// Pause, resume or stop.
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
            .change(id, &by.name, &repeats, |delivery, now| {
                // whoever may prepare may also stop a preparation
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
                Ok(Decision {
                    state,
                    document,
                    answer: state,
                    act: Some((control.word(), json!({ "state": delivery.state.word() }))),
                })
            })
            .await?;
        if control == Control::Resume {
            // a person has looked at it
            self.limits.close_delivery_breaker(id).await?;
            self.fair_queue.request_jobs(id).await?;
        }
        Ok(changed.answer())
    }

    /// Tries a chunk again that was set aside.
    pub async fn retry_chunk(
        &self,
        by: &Principal,
        at: &ChunkRef,
        key: Option<&IdempotencyKey>,
    ) -> Result<DeliveryState, Refusal> {
        require(by, Role::StartDeliveries)?;
        let repeats: Vec<RepeatKey> =
            key.iter().map(|key| RepeatKey::of(key, &at.delivery)).collect();
        let is_aside = self.fair_queue.chunks.is_poisoned(at).await?;
        let changed = self
            .deliveries
            .change(&at.delivery, &by.name, &repeats, |delivery, now| {
                if !is_aside || delivery.state.has_ended() {
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
        // what a crash left undone its repeat does
        if is_aside {
            self.fair_queue.chunks.retry_poisoned(at).await?;
            self.fair_queue.request_jobs(&at.delivery).await?;
        }
        Ok(changed.answer())
    }
}
