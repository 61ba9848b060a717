//! Preparation: checks, exclusions, chunks and the digest. Sends nothing; it can be stopped at any time.

use serde_json::json;

use super::pass::{PreparationOutcome, PreparationPass};
use crate::{
    deliveries::{Changed, Context, Decision, IdempotencyKey, Refusal, RepeatKey, require, unix_now},
    domain::{
        Principal, Role,
        audience::{FatigueRule, OwnFatigue},
        delivery::{Action, Confirmation, Definition, DeliveryId, DeliveryState, Plan, Settings, Tracking},
    },
    metrics,
    queue::{Job, JobError, QueueName},
    send::{confirm::confirmation, recover::given_up},
    store::audience::PreparationProgress,
};

impl Context {
    /// Asks for a preparation; a job does it.
    pub async fn request_preparation(
        &self,
        by: &Principal,
        id: &DeliveryId,
        key: Option<&IdempotencyKey>,
    ) -> Result<(), Refusal> {
        require(by, Role::PrepareDeliveries)?;
        let repeats: Vec<RepeatKey> = key.iter().map(|key| RepeatKey::of(key, id)).collect();
        let changed = self
            .change(id, &by.name, &repeats, |delivery, now| {
                let state = delivery.state.after(Action::Prepare)?;
                let mut document = delivery.document.clone();
                if document.definition.settings.request_confirmation == Some(false) {
                    // its preparation releases it
                    require(by, Role::StartDeliveries)?;
                }
                document.changed_at = now;
                document.prepared_by = by.name.clone();
                // an earlier job that has not yet seen that it was stopped must not take this request for its own
                document.generation += 1;
                document.unprepare();
                Ok(Decision { state, document, answer: (), act: Some(("prepare", json!({}))) })
            })
            .await?;
        match changed {
            Changed::Now(()) => {
                self.store.forget_preparations(id).await?;
                self.enqueue_preparation(id, 0).await
            }
            // another job would begin it anew
            Changed::Before(()) => Ok(()),
        }
    }

    /// Puts the job of a preparation on the queue; another round makes another job.
    pub async fn enqueue_preparation(&self, id: &DeliveryId, round: u64) -> Result<(), Refusal> {
        let delivery = self.delivery(id).await?;
        if delivery.state == DeliveryState::Preparing {
            let job = format!("prepare:{id}:{}:{round}", delivery.revision);
            self.queue.enqueue(QueueName::Preparations, &job, &Job::Prepare { delivery: id.to_string() }.encode()).await?;
        }
        Ok(())
    }

    /// The job: prepares a delivery, unless it was stopped or somebody else has taken it over.
    pub async fn prepare(&self, id: &DeliveryId) -> Result<(), JobError> {
        let begun = self
            .change(id, "versand", &[], |delivery, _| {
                if delivery.state != DeliveryState::Preparing {
                    return Err(Refusal::Conflict("it is not being prepared"));
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
        let ended = self.prepare_begun(id, generation).await;
        if !matches!(ended, Err(JobError::Abort(_))) {
            // a failure in reading what is stored counts as a crash does: it comes again
            self.store.forget_preparations(id).await?;
        }
        ended
    }

    async fn prepare_begun(&self, id: &DeliveryId, generation: u32) -> Result<(), JobError> {
        let crashes = self.store.count_preparation(id).await? - 1;
        let delivery = self.delivery(id).await?;
        let of = delivery.document.audience.as_ref().map_or(0, |audience| audience.recipients);
        self.store.note_preparation(id, &PreparationProgress { generation, done: 0, of, beat: 0 }).await?;
        // an upload that is newer than the audience may still be going on
        let audience = delivery.document.audience.as_ref().map_or(0, |audience| audience.upload);
        let outcome = match crashes > self.config.queue.crashes {
            true => Some(given_up(&delivery, crashes)),
            false => PreparationPass::run(self, &delivery, generation).await?,
        };
        self.remove_older(id, audience, generation).await?;
        let concluded = match outcome {
            Some(outcome) => self.conclude(id, generation, outcome).await?,
            None => false,
        };
        if !concluded {
            self.remove_older(id, audience, generation + 1).await?;
        }
        Ok(())
    }

    /// False if it came too late.
    async fn conclude(&self, id: &DeliveryId, generation: u32, outcome: PreparationOutcome) -> Result<bool, Refusal> {
        let done = self
            .change(id, &outcome.by, &[], |delivery, now| {
                if delivery.document.generation != generation {
                    return Err(Refusal::Conflict("another preparation began"));
                }
                let good = outcome.plan.is_some();
                let state = delivery.state.after(Action::PreparationEnds { good })?;
                let mut document = delivery.document.clone();
                document.changed_at = now;
                document.checks = outcome.checks.clone();
                document.plan = outcome.plan.clone().map(|plan| Plan { prepared_at: now, ..plan });
                // without a request for confirmation it is released by whoever prepared it, who had the role for that
                let confirmed = document.plan.as_ref().filter(|plan| !plan.settings.request_confirmation);
                let confirmed = confirmed.and_then(|plan| state.after(confirmation(plan, now).ok()?).ok());
                let details = match &document.plan {
                    Some(plan) => json!({
                        "digest": plan.digest, "to_deliver": plan.to_deliver, "excluded": plan.excluded,
                        "confirmed": confirmed.is_some(),
                    }),
                    None => json!({ "errors": document.checks.errors_total }),
                };
                if confirmed.is_some() {
                    document.release = Some(Confirmation { by: outcome.by.clone(), confirmed_at: now, started: false });
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
                    self.enqueue_start(id, u64::from(unix_now())).await?;
                }
                Ok(true)
            }
            Err(Refusal::Conflict(_) | Refusal::Illegal(_) | Refusal::NotFound) => Ok(false),
            Err(other) => Err(other),
        }
    }
}

/// What the delivery says, and the configuration where it says nothing.
pub fn settings(context: &Context, definition: &Definition) -> Settings {
    let (own, default, rule) = (&definition.settings, &context.config.send, &context.config.fatigue);
    // pixel and links are in the HTML part: without one nothing is known, which is not zero
    let has_html = definition.content.html.is_some();
    let (tracking, usual) = (own.tracking.clone().unwrap_or_default(), &context.config.tracking);
    Settings {
        in_doubt: own.in_doubt.unwrap_or(default.in_doubt),
        validity_hours: own.validity_hours.unwrap_or(default.validity_hours),
        retry_minutes: own.retry_minutes.clone().unwrap_or_else(|| default.retry_minutes.clone()),
        grace_minutes: own.grace_minutes.unwrap_or(default.grace_minutes),
        request_confirmation: own.request_confirmation.unwrap_or(true),
        messages_per_second: own
            .messages_per_second
            .or((default.messages_per_second > 0.0).then_some(default.messages_per_second)),
        fatigue: match own.fatigue {
            Some(OwnFatigue::Exempt(_)) => None,
            Some(OwnFatigue::Rule(rule)) => Some(rule),
            None => (rule.messages > 0).then_some(FatigueRule { messages: rule.messages, days: rule.days }),
        },
        approvals: own.approvals.unwrap_or(1).max(default.approvals),
        smtp_test: own.smtp_test.unwrap_or(false),
        denylist: own.denylist.unwrap_or(true),
        tracking: Tracking {
            url: context.config.public.url.trim_end_matches('/').to_owned(),
            opens: has_html && tracking.opens.unwrap_or(usual.opens),
            clicks: has_html && tracking.clicks.unwrap_or(usual.clicks),
            mirror_link: tracking.mirror_link.unwrap_or_else(|| usual.mirror_link.clone()),
        },
        message_limit_kib: u32::try_from(context.config.preparation.message_limit_kib).unwrap_or(u32::MAX),
    }
}
