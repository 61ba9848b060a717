//! Recurring deliveries: of a template one occurrence after the other is created, and prepared if its audience is stored.
//!
//! An occurrence is a delivery like any other: whatever holds for those holds for it. Its id derives from template and instant,
//! so whoever comes first creates it. The template goes on to the next instant afterwards: a crash in between is repeated.

use crate::deliveries::each_delivery;

use super::effective_settings::effective_settings;
use crate::config::Config;
use crate::deliveries::Deliveries;
use crate::send::StepJobs;
use crate::store::audience::AudienceStore;
use jiff::Timestamp;
use serde_json::json;
use std::sync::Arc;

use crate::{
    deliveries::{Decision, Refusal, require},
    domain::{
        Invalid, Principal, Role,
        delivery::{Action, Definition, Delivery, DeliveryId, DeliveryState, Document},
        schedule::{AudienceSource, Occurrence, Recurrence, RecurrenceRule, occurrence_id},
    },
    metrics,
    store::StoreError,
};

/// Templates and occurrences looked at at a time.
const AT_A_TIME: usize = 16;

/// What became of an occurrence that was to be created.
enum OccurrenceOutcome {
    Created(DeliveryId),
    /// Its time had passed: no daemon ran.
    Skipped,
    /// It cannot be made.
    Failed(String),
}

#[derive(Clone)]
pub struct Recurrences {
    pub deliveries: Deliveries,
    pub audiences: AudienceStore,
    pub jobs: StepJobs,
    pub config: Arc<Config>,
}

impl Recurrences {
    /// Makes a delivery a template, or gives it another rule. What was created already stays as it is.
    pub async fn set_recurrence(
        &self,
        by: &Principal,
        id: &DeliveryId,
        rule: RecurrenceRule,
    ) -> Result<Delivery, Refusal> {
        require(by, Role::StartDeliveries)?;
        let changed = self
            .deliveries
            .change(id, &by.name, &[], |delivery, now| {
                let next = rule.first(now)?;
                if rule.audience == AudienceSource::Stored && delivery.document.audience.is_none() {
                    let reason = "cannot be stored: none has been uploaded yet".into();
                    return Err(Invalid { field: "audience".into(), reason }.into());
                }
                self.occurrence(delivery, &rule, next)?;
                let mut document = delivery.document.clone();
                document.changed_at = now;
                let details = json!({ "rule": rule, "next": next });
                document.recurrence = Some(Recurrence {
                    rule: rule.clone(),
                    by: by.name.clone(),
                    set_at: now,
                    next: Some(next),
                });
                Ok(Decision {
                    state: delivery.state,
                    document,
                    answer: (),
                    act: Some(("recur", details)),
                })
            })
            .await?;
        changed.answer();
        self.deliveries.delivery(id).await
    }

    /// No occurrence is created any more. Those that were stay as they are.
    pub async fn end_recurrence(&self, by: &Principal, id: &DeliveryId) -> Result<(), Refusal> {
        require(by, Role::StartDeliveries)?;
        let changed = self
            .deliveries
            .change(id, &by.name, &[], |delivery, now| {
                let mut document = delivery.document.clone();
                document.recurrence.take().ok_or(Refusal::NoRecurrence)?;
                document.changed_at = now;
                Ok(Decision {
                    state: delivery.state,
                    document,
                    answer: (),
                    act: Some(("end_recurrence", json!({}))),
                })
            })
            .await?;
        changed.answer();
        Ok(())
    }

    /// The task: creates the occurrences whose lead time has begun, and says which were not released in time.
    pub async fn create_due(&self) -> bool {
        let done = self.create_all_due().await;
        if let Err(error) = &done {
            tracing::warn!(%error, "occurrences are created when Redis answers");
        }
        done.is_ok()
    }

    async fn create_all_due(&self) -> Result<(), StoreError> {
        let now = Timestamp::now();
        let due = self.deliveries.store.recurrences_due(now).await?;
        let failure = "its occurrence cannot be created yet";
        each_delivery(due, AT_A_TIME, failure, async |id| self.look_at(&id, now).await).await
    }

    /// The step for one template or occurrence; it may be done twice.
    pub async fn look_at(&self, id: &DeliveryId, now: Timestamp) -> Result<(), Refusal> {
        if let Some(delivery) = self
            .deliveries
            .store
            .delivery(id)
            .await?
            .filter(|d| d.document.wakes_at(d.state).is_some_and(|at| at <= now))
        {
            self.create_next(&delivery, now).await?;
            self.note_missed(&delivery, now).await?;
        }
        let wakes = self
            .deliveries
            .store
            .delivery(id)
            .await?
            .and_then(|delivery| delivery.document.wakes_at(delivery.state));
        Ok(self.deliveries.store.list_recurrence(id, wakes).await?)
    }

    async fn create_next(&self, template: &Delivery, now: Timestamp) -> Result<(), Refusal> {
        let Some(recurrence) = &template.document.recurrence else { return Ok(()) };
        let Some(due) = recurrence.next.filter(|due| recurrence.rule.creation(*due) <= now) else {
            return Ok(());
        };
        let became = match due <= now {
            true => OccurrenceOutcome::Skipped,
            false => match self.create_occurrence(template, recurrence, due).await {
                Ok(id) => OccurrenceOutcome::Created(id),
                Err(Refusal::Invalid(invalid)) => OccurrenceOutcome::Failed(invalid.to_string()),
                Err(other) => return Err(other),
            },
        };
        self.advance(&template.id, due, now, &became).await
    }

    /// What an occurrence is to be.
    fn occurrence(
        &self,
        template: &Delivery,
        rule: &RecurrenceRule,
        due: Timestamp,
    ) -> Result<Definition, Invalid> {
        let definition = rule.definition(&template.document.definition, due)?;
        definition.check()?;
        if !rule.request_confirmation && effective_settings(&self.config, &definition).approvals > 1
        {
            let reason = "cannot be false where two approvals are needed".into();
            return Err(Invalid { field: "request_confirmation".into(), reason });
        }
        Ok(definition)
    }

    /// Creates an occurrence unless it is there. It is there as a whole or not at all: nobody can change what is released in
    /// another one's name before it is being prepared.
    pub async fn create_occurrence(
        &self,
        template: &Delivery,
        recurrence: &Recurrence,
        due: Timestamp,
    ) -> Result<DeliveryId, Refusal> {
        let id = occurrence_id(&template.id, due);
        if self.deliveries.store.state(&id).await?.is_some() {
            return Ok(id);
        }
        let definition = self.occurrence(template, &recurrence.rule, due)?;
        let grace = jiff::SignedDuration::from_secs(i64::from(
            effective_settings(&self.config, &definition).grace_s(),
        ));
        let open_until = due.checked_add(grace).unwrap_or(due);
        let mut document = Document::new(definition, &recurrence.by, Timestamp::now());
        document.occurrence =
            Some(Occurrence { of: template.id.clone(), due, open_until, lapsed: false });
        let mut state = DeliveryState::Editing;
        if let (AudienceSource::Stored, Some(audience)) =
            (recurrence.rule.audience, &template.document.audience)
        {
            // under the number it has there, so that a copy of a newer upload never mixes with this one
            let upload = audience.upload;
            self.audiences
                .copy_upload((&template.id, upload), (&id, upload), audience.slices)
                .await?;
            (document.uploads, document.audience) = (upload, Some(audience.clone()));
            (document.generation, document.prepared_by) = (1, recurrence.by.clone());
            state = state.after(Action::Prepare)?;
        }
        // copying takes its time: what was changed or ended meanwhile must not come back
        if self.deliveries.delivery(&template.id).await?.revision != template.revision {
            return Err(Refusal::Conflict(
                "the template was changed meanwhile: its occurrence is created anew",
            ));
        }
        let details =
            json!({ "of": template.id, "due": due, "prepare": state == DeliveryState::Preparing });
        let decision = Decision { state, document, answer: (), act: Some(("create", details)) };
        // whoever was faster has created the same
        self.deliveries.commit(&id, 0, &recurrence.by, &[], decision).await?;
        self.jobs.enqueue_preparation(&id, 0).await?;
        Ok(id)
    }

    /// The template goes on to the next instant that lies ahead, unless another daemon was faster.
    async fn advance(
        &self,
        id: &DeliveryId,
        due: Timestamp,
        now: Timestamp,
        became: &OccurrenceOutcome,
    ) -> Result<(), Refusal> {
        // another shard: it must not forget the occurrence while this one goes on
        self.deliveries.redis.await_durability().await?;
        let gone_on = self
            .deliveries
            .change(id, "versand", &[], |delivery, _| {
                let mut document = delivery.document.clone();
                let recurrence =
                    document.recurrence.as_mut().filter(|recurrence| recurrence.next == Some(due));
                let recurrence = recurrence.ok_or(Refusal::Conflict("it has gone on"))?;
                let next = recurrence.rule.instants()?.after(due.max(now));
                recurrence.next = next;
                let (action, details) = match became {
                    OccurrenceOutcome::Created(id) => {
                        ("occurrence", json!({ "id": id, "due": due, "next": next }))
                    }
                    OccurrenceOutcome::Skipped => ("skip", json!({ "due": due, "next": next })),
                    OccurrenceOutcome::Failed(why) => {
                        ("skip", json!({ "due": due, "next": next, "error": why }))
                    }
                };
                Ok(Decision {
                    state: delivery.state,
                    document,
                    answer: (),
                    act: Some((action, details)),
                })
            })
            .await;
        match gone_on {
            Ok(_) => say(id, due, became),
            Err(Refusal::Conflict(_) | Refusal::NotFound) => {}
            Err(other) => return Err(other),
        }
        Ok(())
    }

    /// Says that an occurrence was not released in time; once.
    async fn note_missed(&self, delivery: &Delivery, now: Timestamp) -> Result<(), Refusal> {
        let late =
            |occurrence: &&mut Occurrence| !occurrence.lapsed && occurrence.open_until <= now;
        let lapsed = self
            .deliveries
            .change(&delivery.id, "versand", &[], |delivery, _| {
                let mut document = delivery.document.clone();
                let occurrence = document
                    .occurrence
                    .as_mut()
                    .filter(|_| delivery.state.awaits_confirmation())
                    .filter(late);
                let occurrence = occurrence.ok_or(Refusal::Conflict("it is not late"))?;
                occurrence.lapsed = true;
                let details = json!({ "due": occurrence.due, "state": delivery.state.word() });
                Ok(Decision {
                    state: delivery.state,
                    document,
                    answer: (),
                    act: Some(("lapse", details)),
                })
            })
            .await;
        match lapsed {
            Ok(_) => {
                metrics::occurrence("failed");
                tracing::warn!(delivery.id = %delivery.id, "this occurrence was not released in time and is not sent");
                Ok(())
            }
            Err(Refusal::Conflict(_) | Refusal::NotFound) => Ok(()),
            Err(other) => Err(other),
        }
    }
}

fn say(id: &DeliveryId, due: Timestamp, became: &OccurrenceOutcome) {
    match became {
        OccurrenceOutcome::Created(occurrence) => {
            metrics::occurrence("created");
            tracing::info!(delivery.id = %id, %occurrence, %due, "an occurrence was created");
        }
        OccurrenceOutcome::Skipped => {
            metrics::occurrence("skipped");
            tracing::warn!(delivery.id = %id, %due, "no daemon ran when this occurrence was to be created: it is not sent late");
        }
        OccurrenceOutcome::Failed(error) => {
            metrics::occurrence("failed");
            tracing::warn!(delivery.id = %id, %due, error, "this occurrence cannot be created");
        }
    }
}

/// Refuses a change of a template by somebody whose change would be released without anybody looking at it.
///
/// # Errors
/// The role that is missing.
pub(super) fn may_change(by: &Principal, template: &Document) -> Result<(), Refusal> {
    match template.recurrence.as_ref().is_some_and(|recurrence| recurrence.rule.sends_unreviewed())
    {
        true => require(by, Role::StartDeliveries),
        false => Ok(()),
    }
}
