//! Creates, changes and deletes deliveries.

use jiff::Timestamp;
use serde_json::json;

use super::effective_settings::settings_floor;
use crate::{
    config::Config,
    deliveries::{Changed, Decision, Deliveries, IdempotencyKey, Refusal, RepeatKey, require},
    domain::{
        Invalid, Principal, Role,
        delivery::{Action, Definition, Delivery, DeliveryId, DeliveryState, Document},
    },
    live::Live,
    mail::template::{TemplateThreads, check_language},
    send::operate::Removal,
    store::StoreError,
};

/// Creates, changes and deletes deliveries.
#[derive(Clone)]
pub struct Definitions {
    pub deliveries: Deliveries,
    pub removal: Removal,
    pub config: Live<Config>,
    /// The threads that check the language of templates.
    pub threads: TemplateThreads,
}

impl Definitions {
    /// Creates a delivery.
    ///
    /// With a key the id derives from principal and key. A repeated request then finds the
    /// delivery of the first one, and gets it as it was when it was created.
    ///
    /// # Errors
    /// If the principal lacks the role, the definition is invalid, or the key was used for another
    /// request.
    pub async fn create(
        &self,
        by: &Principal,
        mut definition: Definition,
        key: Option<&IdempotencyKey>,
    ) -> Result<Changed<Delivery>, Refusal> {
        require(by, Role::PrepareDeliveries)?;
        definition.check()?;
        settings_floor(&self.config.now()).check(&definition.settings)?;
        definition.unit = unit_for(by, definition.unit, None)?;
        self.check_templates(&definition).await?;
        let id = match key {
            Some(key) => DeliveryId::derived(&by.name, &key.key),
            None => DeliveryId::from_random(random()?),
        };
        let repeats: Vec<RepeatKey> = key.iter().map(|key| RepeatKey::of(key, &id)).collect();
        let created_at = match self.deliveries.first_answer(&repeats).await? {
            Some(before) => before,
            // the id is taken, perhaps by a deleted delivery. Either the very same request was
            // faster, or the key was used for another request or has expired
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
                    .commit(&id, None, &by.name, &repeats, decision)
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

    /// Replaces the definition. A prepared delivery must be prepared again.
    ///
    /// # Errors
    /// If the principal lacks a role, the definition is invalid, or the state allows no change.
    pub async fn redefine(
        &self,
        by: &Principal,
        id: &DeliveryId,
        definition: Definition,
    ) -> Result<(), Refusal> {
        require(by, Role::PrepareDeliveries)?;
        definition.check()?;
        settings_floor(&self.config.now()).check(&definition.settings)?;
        self.check_templates(&definition).await?;
        let changed = self
            .deliveries
            .change(id, by, &[], |delivery, now| {
                let mut decision =
                    unprepared(by, delivery, now, "change", json!({ "changed": "definition" }))?;
                let before = decision.document.definition.unit.take();
                let unit = unit_for(by, definition.unit.clone(), before)?;
                decision.document.definition_by = by.name.clone();
                decision.document.definition = Definition { unit, ..definition.clone() };
                Ok(decision)
            })
            .await?;
        changed.answer();
        Ok(())
    }

    /// Refuses templates outside the template language.
    ///
    /// # Errors
    /// The first field and line that cannot be used.
    async fn check_templates(&self, definition: &Definition) -> Result<(), Refusal> {
        let content = definition.content.clone();
        let checked = self.threads.run(move || {
            content.parts().try_for_each(|(part, source)| {
                check_language(source).map_err(|violation| {
                    let line = violation.line.map(|line| format!("template line {line}: "));
                    let reason = format!("{}{}", line.unwrap_or_default(), violation.reason);
                    Invalid::new(format!("content.{part}"), reason)
                })
            })
        });
        let checked = checked.await.map_err(|error| StoreError::Damaged(error.to_string()))?;
        Ok(checked?)
    }

    /// Deletes a delivery with its audience and logs. The audit log stays, and the id is not used
    /// again.
    ///
    /// # Errors
    /// If the principal lacks the role, which is another one after the release; if the delivery
    /// cannot be deleted in its state.
    pub async fn delete(&self, by: &Principal, id: &DeliveryId) -> Result<(), Refusal> {
        if self.deliveries.store.state(id).await? == Some(DeliveryState::Deleted) {
            require(by, Role::PrepareDeliveries).or_else(|_| require(by, Role::Administration))?;
            // an earlier deletion may have been cut short
            return Ok(self.removal.remove_deleted(id).await?);
        }
        self.deliveries
            .change(id, by, &[], |delivery, now| {
                // what was sent is evidence: who sent it may not delete it without another role
                require(
                    by,
                    match delivery.state.is_released() {
                        true => Role::Administration,
                        false => Role::PrepareDeliveries,
                    },
                )?;
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
///
/// # Errors
/// If the state allows no change, or the change of a template needs another role.
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

/// Refuses the change of a template whose occurrences are sent without a confirmation, unless the
/// principal may confirm.
///
/// # Errors
/// If that role is missing.
pub(super) fn may_change(by: &Principal, template: &Document) -> Result<(), Refusal> {
    match template.recurrence.as_ref().is_some_and(|recurrence| recurrence.rule.sends_unreviewed())
    {
        true => require(by, Role::StartDeliveries),
        false => Ok(()),
    }
}

/// The unit of a delivery that `by` defines.
///
/// # Errors
/// If `by` may not name the unit.
fn unit_for(
    by: &Principal,
    asked: Option<String>,
    before: Option<String>,
) -> Result<Option<String>, Invalid> {
    by.unit_for(asked, before).map_err(|reason| Invalid::new("unit", reason))
}

fn random() -> Result<[u8; 10], Refusal> {
    let mut bytes = [0; 10];
    getrandom::fill(&mut bytes).map_err(|e| Refusal::BrokenUpload(e.to_string()))?;
    Ok(bytes)
}
