//! Recurring deliveries: a template creates one occurrence after the other.
//!
//! An occurrence is a delivery like any other. It is prepared at once if the template's audience is
//! stored. Its id derives from template and due instant, so several daemons create it once. The
//! template advances to the next instant afterwards. After a crash in between, both steps are
//! repeated.

use crate::domain::Invalid;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::effective_settings::{effective_settings, settings_floor};
use crate::{
    config::Config,
    deliveries::{Decision, Deliveries, Refusal, each_delivery, require},
    domain::{
        Principal, Role,
        delivery::{Action, Definition, Delivery, DeliveryId, DeliveryState, Document},
        schedule::{AudienceSource, Occurrence, Recurrence, RecurrenceRule, occurrence_id},
    },
    live::Live,
    metrics,
    send::StepJobs,
    store::{StoreError, audience::AudienceStore},
};

/// How many templates and occurrences are looked at in parallel.
const AT_A_TIME: usize = 16;

/// The result of the attempt to create an occurrence.
enum OccurrenceOutcome {
    Created(DeliveryId),
    /// The due instant had passed: for example, no daemon ran or the store was held.
    Skipped,
    /// The definition of the occurrence is invalid; the text says why.
    Failed(String),
}

/// Sets recurrences and creates occurrences.
#[derive(Clone)]
pub struct Recurrences {
    pub deliveries: Deliveries,
    pub audiences: AudienceStore,
    pub jobs: StepJobs,
    pub config: Live<Config>,
}

impl Recurrences {
    /// Makes a delivery a template, or gives it another rule. Occurrences that exist stay as they
    /// are.
    ///
    /// # Errors
    /// If the principal lacks the role, or the rule does not fit the delivery.
    pub async fn set_recurrence(
        &self,
        by: &Principal,
        id: &DeliveryId,
        rule: RecurrenceRule,
    ) -> Result<Delivery, Refusal> {
        require(by, Role::StartDeliveries)?;
        let changed = self
            .deliveries
            .change(id, by, &[], |delivery, now| {
                let next = rule.first(now)?;
                if rule.audience == AudienceSource::Stored && delivery.document.audience.is_none() {
                    let reason = "cannot be `stored`: no audience has been uploaded yet".into();
                    return Err(Invalid { field: "audience".into(), reason }.into());
                }
                self.occurrence_definition(delivery, &rule, next)?;
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

    /// Ends a recurrence: no further occurrence is created. Existing ones stay as they are.
    ///
    /// # Errors
    /// If the principal lacks the role, or the delivery is no template.
    pub async fn end_recurrence(&self, by: &Principal, id: &DeliveryId) -> Result<(), Refusal> {
        require(by, Role::StartDeliveries)?;
        let changed = self
            .deliveries
            .change(id, by, &[], |delivery, now| {
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

    /// The task: creates the occurrences whose lead time has begun, and notes those that nobody
    /// confirmed in time. Returns false if Redis did not answer.
    pub async fn create_due(&self) -> bool {
        let done = self.create_all_due().await;
        if let Err(error) = &done {
            error.log_failed_pass("occurrences wait until Redis answers");
        }
        done.is_ok()
    }

    async fn create_all_due(&self) -> Result<(), StoreError> {
        if self.deliveries.store_is_held().await? {
            return Ok(());
        }
        let now = Timestamp::now();
        let due = self.deliveries.store.recurrences_due(now).await?;
        let failure = "an occurrence of this template cannot be created yet";
        each_delivery(due, AT_A_TIME, failure, async |id| self.look_at(&id, now).await).await
    }

    /// Looks at one template or occurrence at `now`; the step may run twice.
    ///
    /// # Errors
    /// If Redis does not answer, or the template was changed meanwhile.
    pub async fn look_at(&self, id: &DeliveryId, now: Timestamp) -> Result<(), Refusal> {
        if let Some(delivery) = self
            .deliveries
            .read(id)
            .await?
            .filter(|d| d.document.wakes_at(d.state).is_some_and(|at| at <= now))
        {
            self.create_next(&delivery, now).await?;
            self.note_missed(&delivery, now).await?;
        }
        let wakes = self
            .deliveries
            .read(id)
            .await?
            .and_then(|delivery| delivery.document.wakes_at(delivery.state));
        Ok(self.deliveries.store.list_recurrence(id, wakes).await?)
    }

    async fn create_next(&self, template: &Delivery, now: Timestamp) -> Result<(), Refusal> {
        let Some(recurrence) = &template.document.recurrence else { return Ok(()) };
        let Some(due) = recurrence.next.filter(|due| recurrence.rule.creation(*due) <= now) else {
            return Ok(());
        };
        let outcome = match due <= now {
            true => OccurrenceOutcome::Skipped,
            false => match self.create_occurrence(template, recurrence, due).await {
                Ok(id) => OccurrenceOutcome::Created(id),
                Err(Refusal::Invalid(invalid)) => OccurrenceOutcome::Failed(invalid.to_string()),
                Err(other) => return Err(other),
            },
        };
        self.advance(&template.id, due, now, &outcome).await
    }

    /// The definition of the occurrence that is due at `due`.
    fn occurrence_definition(
        &self,
        template: &Delivery,
        rule: &RecurrenceRule,
        due: Timestamp,
    ) -> Result<Definition, Invalid> {
        let definition = rule.definition(&template.document.definition, due)?;
        definition.check()?;
        settings_floor(&self.config.now()).check(&definition.settings)?;
        if !rule.request_confirmation
            && effective_settings(&self.config.now(), &definition).approvals > 1
        {
            let reason = "cannot be false where two sign-offs are needed".into();
            return Err(Invalid { field: "request_confirmation".into(), reason });
        }
        Ok(definition)
    }

    /// Creates an occurrence unless it exists.
    ///
    /// One write makes it complete. With a stored audience its state is `preparing` from the start,
    /// so nobody can change it before its preparation. Creation and preparation run in the name of
    /// the principal who set the recurrence.
    ///
    /// # Errors
    /// If its definition is invalid, or the template was changed meanwhile.
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
        let definition = self.occurrence_definition(template, &recurrence.rule, due)?;
        let grace = SignedDuration::from_secs(i64::from(
            effective_settings(&self.config.now(), &definition).grace_s(),
        ));
        let open_until = due.checked_add(grace).unwrap_or(due);
        let mut document = Document::new(definition, &recurrence.by, Timestamp::now());
        // the writers of the template are those of its occurrences
        document.definition_by = template.document.definition_by.clone();
        document.audience_by = template.document.audience_by.clone();
        document.occurrence =
            Some(Occurrence { of: template.id.clone(), due, open_until, lapsed: false });
        let mut state = DeliveryState::Editing;
        if let (AudienceSource::Stored, Some(audience)) =
            (recurrence.rule.audience, &template.document.audience)
        {
            // under the number of the original upload, so that copies of two uploads never mix
            let upload = audience.upload;
            self.audiences
                .copy_upload((&template.id, upload), (&id, upload), audience.slices)
                .await?;
            (document.uploads, document.audience) = (upload, Some(audience.clone()));
            (document.generation, document.prepared_by) = (1, recurrence.by.clone());
            state = state.after(Action::Prepare)?;
        }
        // the copy takes long, and a change or end of the template meanwhile must count
        if self.deliveries.delivery(&template.id).await?.revision != template.revision {
            return Err(Refusal::Conflict(
                "the template was changed meanwhile: its occurrence is created again",
            ));
        }
        let details =
            json!({ "of": template.id, "due": due, "prepare": state == DeliveryState::Preparing });
        let decision = Decision { state, document, answer: (), act: Some(("create", details)) };
        // the result does not matter: a daemon that was faster has created the same occurrence
        self.deliveries.commit(&id, None, &recurrence.by, &[], decision).await?;
        self.jobs.enqueue_preparation(&id, 0).await?;
        Ok(id)
    }

    /// Advances the template to the next instant ahead, unless another daemon was faster.
    async fn advance(
        &self,
        id: &DeliveryId,
        due: Timestamp,
        now: Timestamp,
        outcome: &OccurrenceOutcome,
    ) -> Result<(), Refusal> {
        // In a Redis cluster the occurrence would be on another server. The template may go on only
        // when the occurrence is durable there.
        self.deliveries.await_durability().await?;
        let advanced = self
            .deliveries
            .change(id, "versand", &[], |delivery, _| {
                let mut document = delivery.document.clone();
                let recurrence =
                    document.recurrence.as_mut().filter(|recurrence| recurrence.next == Some(due));
                let recurrence =
                    recurrence.ok_or(Refusal::Conflict("the template has advanced already"))?;
                let next = recurrence.rule.instants()?.after(due.max(now));
                recurrence.next = next;
                let (action, details) = match outcome {
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
        match advanced {
            Ok(_) => report(id, due, outcome),
            Err(Refusal::Conflict(_) | Refusal::NotFound) => {}
            Err(other) => return Err(other),
        }
        Ok(())
    }

    /// Notes once that nobody confirmed an occurrence in time.
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
                let occurrence =
                    occurrence.ok_or(Refusal::Conflict("the occurrence has not lapsed"))?;
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
                tracing::warn!(
                    delivery.id = %delivery.id,
                    "this occurrence was not confirmed in time and is not sent"
                );
                Ok(())
            }
            Err(Refusal::Conflict(_) | Refusal::NotFound) => Ok(()),
            Err(other) => Err(other),
        }
    }
}

fn report(id: &DeliveryId, due: Timestamp, outcome: &OccurrenceOutcome) {
    match outcome {
        OccurrenceOutcome::Created(occurrence) => {
            metrics::occurrence("created");
            tracing::info!(delivery.id = %id, %occurrence, %due, "an occurrence was created");
        }
        OccurrenceOutcome::Skipped => {
            metrics::occurrence("skipped");
            tracing::warn!(
                delivery.id = %id,
                %due,
                "this occurrence was not created before it was due: it is skipped"
            );
        }
        OccurrenceOutcome::Failed(error) => {
            metrics::occurrence("failed");
            tracing::warn!(delivery.id = %id, %due, error, "this occurrence cannot be created");
        }
    }
}
