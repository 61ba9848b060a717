//! Create, change and delete a delivery.

use jiff::Timestamp;
use serde_json::json;

use super::recurrences::may_change;
use crate::{
    deliveries::{Changed, Decision, Deliveries, IdempotencyKey, Refusal, RepeatKey, require},
    domain::{
        Principal, Role,
        delivery::{Action, Definition, Delivery, DeliveryId, DeliveryState, Document},
    },
    send::operate::Removal,
};

#[derive(Clone)]
pub struct Definitions {
    pub deliveries: Deliveries,
    pub removal: Removal,
}

impl Definitions {
    /// Creates a delivery. With a key its id derives from principal and key, so that a second request finds the first one's,
    /// and gets it as it was then.
    pub async fn create(
        &self,
        by: &Principal,
        definition: Definition,
        key: Option<&IdempotencyKey>,
    ) -> Result<Changed<Delivery>, Refusal> {
        require(by, Role::PrepareDeliveries)?;
        definition.check()?;
        let id = match key {
            Some(key) => DeliveryId::derived(&by.name, &key.key),
            None => DeliveryId::from_random(random()?),
        };
        let repeats: Vec<RepeatKey> = key.iter().map(|key| RepeatKey::of(key, &id)).collect();
        let created_at = match self.deliveries.first_answer(&repeats).await? {
            Some(before) => before,
            // the id is taken, be it by one that is deleted and no longer listed: its key was used for another request or has
            // expired, unless the very same request was faster
            None if key.is_some() && self.deliveries.store.state(&id).await?.is_some() => {
                self.deliveries.first_answer(&repeats).await?.ok_or(Refusal::KeyReused)?
            }
            None => {
                let now = Timestamp::now();
                let document = Document::new(definition.clone(), &by.name, now);
                let decision = Decision {
                    state: DeliveryState::Editing,
                    document,
                    answer: now,
                    act: Some(("create", json!({}))),
                };
                self.deliveries
                    .commit(&id, 0, &by.name, &repeats, decision)
                    .await?
                    .ok_or(Refusal::KeyReused)?
            }
        };
        let created = |at| Delivery {
            id,
            revision: 1,
            state: DeliveryState::Editing,
            document: Document::new(definition, &by.name, at),
        };
        Ok(match created_at {
            Changed::Now(at) => Changed::Now(created(at)),
            Changed::Before(at) => Changed::Before(created(at)),
        })
    }

    /// Replaces the definition; a prepared delivery must be prepared again.
    pub async fn redefine(
        &self,
        by: &Principal,
        id: &DeliveryId,
        definition: Definition,
    ) -> Result<(), Refusal> {
        require(by, Role::PrepareDeliveries)?;
        definition.check()?;
        let changed = self
            .deliveries
            .change(id, &by.name, &[], |delivery, now| {
                let mut decision =
                    unprepared(by, delivery, now, "change", json!({ "changed": "definition" }))?;
                decision.document.definition = definition.clone();
                Ok(decision)
            })
            .await?;
        changed.answer();
        Ok(())
    }

    /// Deletes a delivery with its audience and logs. Its audit log stays, and its id stays spent.
    pub async fn delete(&self, by: &Principal, id: &DeliveryId) -> Result<(), Refusal> {
        require(by, Role::PrepareDeliveries)?;
        if self.deliveries.store.state(id).await? == Some(DeliveryState::Deleted) {
            // what was cut short is finished
            return Ok(self.removal.remove_deleted(id).await?);
        }
        self.deliveries
            .change(id, &by.name, &[], |delivery, now| {
                let state = delivery.state.after(Action::Delete)?;
                let mut document = delivery.document.clone();
                document.changed_at = now;
                document.audience = None;
                document.recurrence = None;
                Ok(Decision {
                    state,
                    document,
                    answer: (),
                    act: Some(("delete", json!({ "state": delivery.state.word() }))),
                })
            })
            .await?;
        Ok(self.removal.remove_deleted(id).await?)
    }
}

/// A change that puts the delivery back to `editing`.
pub(super) fn unprepared(
    by: &Principal,
    delivery: &Delivery,
    now: Timestamp,
    action: &'static str,
    details: serde_json::Value,
) -> Result<Decision<()>, Refusal> {
    let state = delivery.state.after(Action::Change)?;
    may_change(by, &delivery.document)?;
    let mut document = delivery.document.clone();
    document.changed_at = now;
    document.unprepare();
    Ok(Decision { state, document, answer: (), act: Some((action, details)) })
}

fn random() -> Result<[u8; 10], Refusal> {
    let mut bytes = [0; 10];
    getrandom::fill(&mut bytes).map_err(|e| Refusal::BrokenUpload(e.to_string()))?;
    Ok(bytes)
}
