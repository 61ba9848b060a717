//! Releases due waves, holds overdue ones for a person, and withdraws schedules.

use serde_json::json;

use super::fair_queue::FairQueue;
use crate::{
    clock::unix_now,
    deliveries::{
        Changed, Decision, Deliveries, IdempotencyKey, Refusal, RepeatKey, each_delivery, require,
    },
    domain::{
        Principal, Role,
        delivery::{Action, Delivery, DeliveryId, DeliveryState, Plan, check_authority},
    },
    metrics,
    send::StepJobs,
    store::{
        StoreError,
        schedule::{ReleasedWaves, ScheduleStore},
    },
};

/// How many deliveries are looked at in parallel.
const AT_A_TIME: usize = 64;

/// Releases waves.
#[derive(Clone)]
pub struct DueWaves {
    pub deliveries: Deliveries,
    pub schedules: ScheduleStore,
    pub jobs: StepJobs,
    pub fair_queue: FairQueue,
}

impl DueWaves {
    /// The task: releases the due waves of deliveries that are scheduled or held. The reconciler
    /// releases those of deliveries in progress.
    ///
    /// Returns false if Redis did not answer.
    pub async fn release_due(&self) -> bool {
        let done = self.release_all_due().await;
        if let Err(error) = &done {
            error.log_failed_pass("due waves wait until Redis answers");
        }
        done.is_ok()
    }

    async fn release_all_due(&self) -> Result<(), StoreError> {
        if self.deliveries.store_is_held().await? {
            return Ok(());
        }
        let due = self.schedules.due_deliveries(unix_now()).await?;
        let failure = "the due waves of this delivery cannot be released";
        each_delivery(due, AT_A_TIME, failure, async |id| self.release_due_of(&id).await).await
    }

    async fn release_due_of(&self, id: &DeliveryId) -> Result<(), Refusal> {
        let delivery = self.deliveries.read(id).await?;
        let scheduled =
            delivery.filter(|d| matches!(d.state, DeliveryState::Scheduled | DeliveryState::Held));
        let scheduled = scheduled.filter(|d| check_authority(&d.document).is_ok());
        let Some((delivery, plan)) =
            scheduled.and_then(|d| d.document.plan.clone().map(|plan| (d, plan)))
        else {
            return Ok(self.schedules.list_due(id, None).await?);
        };
        // before the release, so that the reconciler finds the delivery after a crash
        self.deliveries.store.list_moving(id).await?;
        let released = self.release_waves(&delivery, &plan).await?;
        if released.state == DeliveryState::StartPending {
            self.jobs.enqueue_start(id, delivery.revision + 1).await?;
            return Ok(self.schedules.list_due(id, None).await?);
        }
        Ok(self.schedules.list_due(id, released.next_due).await?)
    }

    /// Releases the due waves of a delivery, and logs newly held ones. Lists the delivery if any of
    /// its waves is held.
    pub(crate) async fn release_waves(
        &self,
        delivery: &Delivery,
        plan: &Plan,
    ) -> Result<ReleasedWaves, StoreError> {
        let released = self.schedules.release_waves(&delivery.id, plan, unix_now(), false).await?;
        metrics::waves("released", released.released);
        metrics::waves("held", released.newly_held);
        if released.released > 0 {
            tracing::info!(
                delivery.id = %delivery.id,
                waves = released.released,
                state = released.state.word(),
                "delivery: due waves are released"
            );
        }
        if released.newly_held > 0 {
            let (waves, grace_minutes) = (released.newly_held, plan.settings.grace_minutes);
            tracing::error!(
                delivery.id = %delivery.id,
                waves,
                grace_minutes,
                "overdue waves are held until a person releases them or stops the delivery"
            );
        }
        if released.held > 0 {
            self.schedules.list_held(&delivery.id, true).await?;
        }
        Ok(released)
    }

    /// Releases the held waves of a delivery, on request of a person. Returns its new state.
    ///
    /// # Errors
    /// If the principal lacks the role, the state of the delivery forbids it, no wave is held, or
    /// the store is held.
    pub async fn release_held(
        &self,
        by: &Principal,
        id: &DeliveryId,
        key: Option<&IdempotencyKey>,
    ) -> Result<DeliveryState, Refusal> {
        require(by, Role::StartDeliveries)?;
        self.deliveries.require_moving_store().await?;
        let repeats: Vec<RepeatKey> = key.iter().map(|key| RepeatKey::of(key, id)).collect();
        let delivery = self.deliveries.delivery(id).await?;
        let held = match &delivery.document.plan {
            Some(plan) => {
                self.schedules.waves(id, plan).await?.iter().filter(|wave| wave.is_held()).count()
            }
            None => 0,
        };
        let changed = self
            .deliveries
            .change(id, by, &repeats, |delivery, now| {
                let state = delivery.state.after(Action::Release)?;
                if held == 0 {
                    return Err(Refusal::Conflict("no wave of the delivery is held"));
                }
                let mut document = delivery.document.clone();
                document.changed_at = now;
                Ok(Decision {
                    state,
                    document,
                    answer: state,
                    act: Some(("release", json!({ "waves": held }))),
                })
            })
            .await?;
        // a repeated request releases nothing: another wave may be held by now
        if let (Changed::Now(_), Delivery { document, revision, .. }) =
            (&changed, self.deliveries.delivery(id).await?)
            && let Some(plan) = &document.plan
        {
            let released = self.schedules.release_waves(id, plan, unix_now(), true).await?;
            metrics::waves("released", released.released);
            // no crash of Redis may undo what was answered
            self.deliveries.await_durability().await?;
            match released.state {
                DeliveryState::StartPending => self.jobs.enqueue_start(id, revision).await?,
                DeliveryState::InProgress => self.mark_chunks_ready(id, plan, &released).await?,
                _ => {}
            }
        }
        Ok(changed.answer())
    }

    /// Marks the chunks of released waves ready, and requests jobs for them.
    pub(crate) async fn mark_chunks_ready(
        &self,
        id: &DeliveryId,
        plan: &Plan,
        released: &ReleasedWaves,
    ) -> Result<(), Refusal> {
        if released.unopened > 0 {
            self.schedules.mark_released_ready(id, plan).await?;
            self.fair_queue.request_jobs(id).await?;
        }
        Ok(())
    }

    /// Withdraws the confirmation of a scheduled delivery. The delivery is again in the state
    /// `prepared`, and a person can confirm it once more. Returns this state.
    ///
    /// # Errors
    /// If the principal lacks the role, or the delivery is not scheduled.
    pub async fn unschedule(
        &self,
        by: &Principal,
        id: &DeliveryId,
        key: Option<&IdempotencyKey>,
    ) -> Result<DeliveryState, Refusal> {
        require(by, Role::StartDeliveries)?;
        let repeats: Vec<RepeatKey> = key.iter().map(|key| RepeatKey::of(key, id)).collect();
        let changed = self
            .deliveries
            .change(id, by, &repeats, |delivery, now| {
                let state = delivery.state.after(Action::Unschedule)?;
                let mut document = delivery.document.clone();
                document.changed_at = now;
                document.confirmation = None;
                document.approval = None;
                Ok(Decision {
                    state,
                    document,
                    answer: state,
                    act: Some(("unschedule", json!({}))),
                })
            })
            .await?;
        if let Changed::Now(_) = changed {
            self.schedules.list_due(id, None).await?;
            // somebody may have confirmed it again meanwhile
            if self.deliveries.store.state(id).await? == Some(DeliveryState::Scheduled) {
                self.schedules.relist_due(id).await?;
            }
        }
        Ok(changed.answer())
    }
}
