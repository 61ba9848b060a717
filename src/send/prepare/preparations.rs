//! Requests of preparations, and the job that does one.

use jiff::Timestamp;
use serde_json::json;

use super::{
    pass::{PreparationOutcome, PreparationPass},
    preparation::PassTools,
};
use crate::{
    clock::unix_now,
    deliveries::{Changed, Decision, Deliveries, IdempotencyKey, Refusal, RepeatKey, require},
    domain::{
        Principal, Role,
        delivery::{
            Action, Checks, Confirmation, Delivery, DeliveryId, DeliveryState, ExpectedRevisions,
            Finding, Plan,
        },
    },
    metrics,
    queue::JobError,
    send::{StepJobs, confirm::confirm_action, operate::Removal},
    store::{
        StoreError,
        audience::{AudienceStore, PreparationProgress},
    },
};

/// Takes requests of preparations and runs their jobs.
#[derive(Clone)]
pub struct Preparations {
    pub deliveries: Deliveries,
    pub audiences: AudienceStore,
    pub removal: Removal,
    pub jobs: StepJobs,
    pub tools: PassTools,
}

impl Preparations {
    /// Requests a preparation; a job does it.
    ///
    /// # Errors
    /// - The principal lacks a role, or the delivery cannot be prepared in its state.
    /// - The preparation will also confirm, but the request names no revision.
    pub async fn request(
        &self,
        by: &Principal,
        id: &DeliveryId,
        key: Option<&IdempotencyKey>,
    ) -> Result<(), Refusal> {
        require(by, Role::PrepareDeliveries)?;
        let repeats: Vec<RepeatKey> = key.iter().map(|key| RepeatKey::of(key, id)).collect();
        let changed = self
            .deliveries
            .change(id, by, &repeats, |delivery, now| {
                let state = delivery.state.after(Action::Prepare)?;
                let mut document = delivery.document.clone();
                if document.definition.settings.request_confirmation == Some(false) {
                    // the preparation will confirm it, too
                    require(by, Role::StartDeliveries)?;
                    if !matches!(by.expects, Some(ExpectedRevisions::OneOf(_))) {
                        return Err(Refusal::RevisionNeeded);
                    }
                }
                document.changed_at = now;
                document.prepared_by = by.name.clone();
                // an earlier job may not have seen yet that it was stopped: it must not take
                // this request for its own
                document.generation += 1;
                document.unprepare();
                Ok(Decision { state, document, answer: (), act: Some(("prepare", json!({}))) })
            })
            .await?;
        match changed {
            Changed::Now(()) => {
                self.audiences.forget_preparations(id).await?;
                self.jobs.enqueue_preparation(id, 0).await
            }
            // another job would begin the preparation again
            Changed::Before(()) => Ok(()),
        }
    }

    /// The job: prepares a delivery, unless it was stopped or another job has taken over.
    ///
    /// # Errors
    /// [`JobError::Retry`] if Redis does not answer; [`JobError::Abort`] if a part is damaged.
    pub async fn run(&self, id: &DeliveryId) -> Result<(), JobError> {
        let begun = self
            .deliveries
            .change(id, "versand", &[], |delivery, _| {
                if delivery.state != DeliveryState::Preparing {
                    return Err(Refusal::Conflict("the delivery is not being prepared"));
                }
                let mut document = delivery.document.clone();
                document.generation += 1;
                let answer = document.generation;
                Ok(Decision { state: delivery.state, document, answer, act: None })
            })
            .await;
        let generation = match begun {
            Ok(changed) => changed.answer(),
            Err(Refusal::Conflict(_) | Refusal::NotFound) => return Ok(()),
            Err(other) => return Err(other.into()),
        };
        let ended = self.run_begun(id, generation).await;
        if !matches!(ended, Err(JobError::Abort(_))) {
            // a damaged part counts as a crash, because the next try would fail, too
            self.audiences.forget_preparations(id).await?;
        }
        ended
    }

    async fn run_begun(&self, id: &DeliveryId, generation: u32) -> Result<(), JobError> {
        let crashes = self.audiences.count_preparation(id).await? - 1;
        let delivery = self.deliveries.delivery(id).await?;
        let of = delivery.document.audience.as_ref().map_or(0, |audience| audience.recipients);
        self.audiences
            .note_preparation(id, &PreparationProgress { generation, done: 0, of, beat: 0 })
            .await?;
        // a newer upload may still be going on, so only older ones are removed
        let audience = delivery.document.audience.as_ref().map_or(0, |audience| audience.upload);
        let outcome = match crashes > self.tools.config.now().queue.crashes {
            true => Some(given_up(&delivery, crashes)),
            false => match PreparationPass::run(&self.tools, &delivery, generation).await {
                Err(StoreError::Altered(part)) => {
                    Box::pin(self.deliveries.halt_altered(id, &part)).await?;
                    None
                }
                outcome => outcome?,
            },
        };
        self.removal.remove_older(id, audience, generation).await?;
        let concluded = match outcome {
            Some(outcome) => self.conclude(id, generation, outcome).await?,
            None => false,
        };
        if !concluded {
            self.removal.remove_older(id, audience, generation + 1).await?;
        }
        Ok(())
    }

    /// Writes the outcome into the delivery.
    ///
    /// Returns false if meanwhile the preparation was stopped, another one began, or the delivery
    /// was deleted.
    async fn conclude(
        &self,
        id: &DeliveryId,
        generation: u32,
        outcome: PreparationOutcome,
    ) -> Result<bool, Refusal> {
        // a held store accepts no confirmation: a person must confirm the delivery later
        let is_held = self.deliveries.store_is_held().await?;
        let done = self
            .deliveries
            .change(id, outcome.by.as_str(), &[], |delivery, now| {
                if delivery.document.generation != generation {
                    return Err(Refusal::Conflict("another preparation began"));
                }
                let good = outcome.plan.is_some();
                let state = delivery.state.after(Action::PreparationEnds { good })?;
                let mut document = delivery.document.clone();
                document.changed_at = now;
                document.checks = outcome.checks.clone();
                document.plan = outcome.plan.clone().map(|plan| Plan { prepared_at: now, ..plan });
                let confirmed = document
                    .plan
                    .as_ref()
                    .filter(|_| !is_held)
                    .and_then(|plan| confirmed_state(plan, state, now));
                let details = match &document.plan {
                    Some(plan) => json!({
                        "digest": plan.digest,
                        "to_deliver": plan.to_deliver,
                        "excluded": plan.excluded,
                        "confirmed": confirmed.is_some(),
                    }),
                    None => json!({ "errors": document.checks.errors_total }),
                };
                if confirmed.is_some() {
                    document.confirmation = Some(Confirmation {
                        by: outcome.by.clone(),
                        confirmed_at: now,
                        started: false,
                    });
                }
                Ok(Decision {
                    state: confirmed.unwrap_or(state),
                    document,
                    answer: confirmed == Some(DeliveryState::StartPending),
                    act: Some((if good { "prepared" } else { "preparation_failed" }, details)),
                })
            })
            .await;
        match done {
            Ok(changed) => {
                metrics::preparation(if outcome.plan.is_some() { "prepared" } else { "failed" });
                if changed.answer() {
                    self.jobs.enqueue_start(id, u64::from(unix_now())).await?;
                }
                Ok(true)
            }
            Err(Refusal::Conflict(_) | Refusal::Illegal(_) | Refusal::NotFound) => Ok(false),
            Err(other) => Err(other),
        }
    }
}

/// The state after a preparation that needs no request for confirmation. `None` if one is needed,
/// or if all waves are overdue.
///
/// Whoever asked for this preparation confirms the delivery with it, and had the role to confirm.
fn confirmed_state(plan: &Plan, prepared: DeliveryState, now: Timestamp) -> Option<DeliveryState> {
    if plan.settings.request_confirmation {
        return None;
    }
    prepared.after(confirm_action(plan, now).ok()?).ok()
}

/// The outcome of a preparation that ended `crashes` times without a result: its worker died, or a
/// part was damaged.
fn given_up(delivery: &Delivery, crashes: u32) -> PreparationOutcome {
    tracing::error!(
        delivery.id = %delivery.id,
        crashes,
        "the preparation has failed: again and again it ended without a result"
    );
    let message = format!("ended {crashes} times without a result: the daemon's log may say why");
    let errors = vec![Finding { field: "preparation".into(), line: None, message }];
    let checks = Checks { errors, errors_total: 1, ..Checks::default() };
    PreparationOutcome { by: delivery.document.prepared_by.clone(), checks, plan: None }
}
