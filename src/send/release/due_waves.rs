//! Waves: what is due is released, what is overdue is held for a person; and a schedule is withdrawn.

use serde_json::json;

use super::fair_queue::FairQueue;
use crate::{
    clock::unix_now,
    deliveries::{
        Changed, Decision, Deliveries, IdempotencyKey, Refusal, RepeatKey, each_delivery, require,
    },
    domain::{
        Principal, Role,
        delivery::{Action, Delivery, DeliveryId, DeliveryState, Plan},
    },
    metrics,
    send::StepJobs,
    store::{
        StoreError,
        schedule::{ReleasedWaves, ScheduleStore},
    },
};

/// Deliveries looked at at a time.
const AT_A_TIME: usize = 64;

#[derive(Clone)]
pub struct DueWaves {
    pub deliveries: Deliveries,
    pub schedules: ScheduleStore,
    pub jobs: StepJobs,
    pub fair_queue: FairQueue,
}

impl DueWaves {
    /// The task: releases the waves that are due of deliveries that are scheduled or held. Of those that are being sent the
    /// reconciler does it.
    pub async fn release_due(&self) -> bool {
        let done = self.release_all_due().await;
        if let Err(error) = &done {
            tracing::warn!(%error, "what is due is released when Redis answers");
        }
        done.is_ok()
    }

    async fn release_all_due(&self) -> Result<(), StoreError> {
        let due = self.schedules.due_deliveries(unix_now()).await?;
        let failure = "its due waves cannot be released";
        each_delivery(due, AT_A_TIME, failure, async |id| self.release_due_of(&id).await).await
    }

    async fn release_due_of(&self, id: &DeliveryId) -> Result<(), Refusal> {
        let delivery = self.deliveries.store.delivery(id).await?;
        let scheduled =
            delivery.filter(|d| matches!(d.state, DeliveryState::Scheduled | DeliveryState::Held));
        let Some((delivery, plan)) =
            scheduled.and_then(|d| d.document.plan.clone().map(|plan| (d, plan)))
        else {
            return Ok(self.schedules.list_due(id, None).await?);
        };
        // before the release, so that a crash leaves nothing that nobody looks after
        self.deliveries.store.list_moving(id).await?;
        let released = self.release_waves(&delivery, &plan).await?;
        if released.state == DeliveryState::StartPending {
            self.jobs.enqueue_start(id, delivery.revision + 1).await?;
            return Ok(self.schedules.list_due(id, None).await?);
        }
        Ok(self.schedules.list_due(id, released.next_due).await?)
    }

    /// Releases the waves of a delivery that are due, and says which are held.
    pub(crate) async fn release_waves(
        &self,
        delivery: &Delivery,
        plan: &Plan,
    ) -> Result<ReleasedWaves, StoreError> {
        let released = self.schedules.release_waves(&delivery.id, plan, unix_now(), false).await?;
        metrics::waves("released", released.released);
        metrics::waves("held", released.newly_held);
        if released.newly_held > 0 {
            let (waves, grace_minutes) = (released.newly_held, plan.settings.grace_minutes);
            tracing::error!(delivery.id = %delivery.id, waves, grace_minutes, "overdue waves are held until a person releases or stops them");
        }
        if released.held > 0 {
            self.schedules.list_held(&delivery.id, true).await?;
        }
        Ok(released)
    }

    /// Releases the waves that are held.
    pub async fn release_held(
        &self,
        by: &Principal,
        id: &DeliveryId,
        key: Option<&IdempotencyKey>,
    ) -> Result<DeliveryState, Refusal> {
        require(by, Role::StartDeliveries)?;
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
            .change(id, &by.name, &repeats, |delivery, now| {
                let state = delivery.state.after(Action::Release)?;
                if held == 0 {
                    return Err(Refusal::Conflict("none of its waves is held"));
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
        // not for a repeat: another wave may be held by now
        if let (Changed::Now(_), Delivery { document, revision, .. }) =
            (&changed, self.deliveries.delivery(id).await?)
            && let Some(plan) = &document.plan
        {
            let released = self.schedules.release_waves(id, plan, unix_now(), true).await?;
            metrics::waves("released", released.released);
            // what was answered must not be undone by a crash of Redis
            self.deliveries.redis.await_durability().await?;
            match released.state {
                DeliveryState::StartPending => self.jobs.enqueue_start(id, revision).await?,
                DeliveryState::InProgress => self.mark_chunks_ready(id, plan, &released).await?,
                _ => {}
            }
        }
        Ok(changed.answer())
    }

    /// Opens the chunks of waves that were released, and names jobs for them.
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

    /// Withdraws the confirmation of a scheduled delivery: it is prepared, and can be confirmed again.
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
            .change(id, &by.name, &repeats, |delivery, now| {
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
            // it may have been confirmed again meanwhile
            if self.deliveries.store.state(id).await? == Some(DeliveryState::Scheduled) {
                self.schedules.relist_due(id).await?;
            }
        }
        Ok(changed.answer())
    }
}
