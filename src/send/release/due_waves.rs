//! Waves: what is due is released, what is overdue is held for a person; and a schedule is withdrawn.

use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use serde_json::json;

use crate::{
    deliveries::{Changed, Context, Decision, IdempotencyKey, Refusal, RepeatKey, require, unix_now},
    domain::{
        Principal, Role,
        delivery::{Action, Delivery, DeliveryId, DeliveryState, Plan},
        schedule::{Wave, WaveState},
    },
    metrics,
    store::{StoreError, schedule::ReleasedWaves},
};

/// Deliveries looked at at a time.
const AT_A_TIME: usize = 64;

impl Context {
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
        let due = stream::iter(self.store.due(unix_now()).await?);
        let mut releases = due.map(|id| async move { (self.release_due_of(&id).await, id) }).buffer_unordered(AT_A_TIME);
        while let Some((released, id)) = releases.next().await {
            match released {
                Ok(()) => {}
                Err(Refusal::Unavailable(error)) if error.may_pass() => return Err(error),
                // what is wrong with one delivery holds up no other
                Err(other) => tracing::error!(delivery.id = %id, error = %other, "its due waves cannot be released"),
            }
        }
        Ok(())
    }

    async fn release_due_of(&self, id: &DeliveryId) -> Result<(), Refusal> {
        let delivery = self.store.delivery(id).await?;
        let scheduled = delivery.filter(|d| matches!(d.state, DeliveryState::Scheduled | DeliveryState::Held));
        let Some((delivery, plan)) = scheduled.and_then(|d| d.document.plan.clone().map(|plan| (d, plan))) else {
            return Ok(self.store.list_due(id, None).await?);
        };
        // before the release, so that a crash leaves nothing that nobody looks after
        self.store.in_motion(id).await?;
        let released = self.release_waves(&delivery, &plan).await?;
        if released.state == DeliveryState::StartPending {
            self.enqueue_start(id, delivery.revision + 1).await?;
            return Ok(self.store.list_due(id, None).await?);
        }
        Ok(self.store.list_due(id, released.next_due).await?)
    }

    /// Releases the waves of a delivery that are due, and says which are held.
    pub(crate) async fn release_waves(&self, delivery: &Delivery, plan: &Plan) -> Result<ReleasedWaves, StoreError> {
        let released = self.store.release_waves(&delivery.id, plan, unix_now(), false).await?;
        metrics::waves("released", released.released);
        metrics::waves("held", released.newly_held);
        if released.newly_held > 0 {
            let (waves, grace_minutes) = (released.newly_held, plan.settings.grace_minutes);
            tracing::error!(delivery.id = %delivery.id, waves, grace_minutes, "overdue waves are held until a person releases or stops them");
        }
        if released.held > 0 {
            self.store.list_held(&delivery.id, true).await?;
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
        let delivery = self.delivery(id).await?;
        let held = match &delivery.document.plan {
            Some(plan) => self.store.waves(id, plan).await?.iter().filter(|wave| wave.is_held()).count(),
            None => 0,
        };
        let changed = self
            .change(id, &by.name, &repeats, |delivery, now| {
                let state = delivery.state.after(Action::Release)?;
                if held == 0 {
                    return Err(Refusal::Conflict("none of its waves is held"));
                }
                let mut document = delivery.document.clone();
                document.changed_at = now;
                Ok(Decision { state, document, answer: state, act: Some(("release", json!({ "waves": held }))) })
            })
            .await?;
        // not for a repeat: another wave may be held by now
        if let (Changed::Now(_), Delivery { document, revision, .. }) = (&changed, self.delivery(id).await?)
            && let Some(plan) = &document.plan
        {
            let released = self.store.release_waves(id, plan, unix_now(), true).await?;
            metrics::waves("released", released.released);
            // what was answered must not be undone by a crash of Redis
            self.store.durable().await?;
            match released.state {
                DeliveryState::StartPending => self.enqueue_start(id, revision).await?,
                DeliveryState::InProgress => self.open_waves(id, plan, &released).await?,
                _ => {}
            }
        }
        Ok(changed.answer())
    }

    /// Opens the chunks of waves that were released, and names jobs for them.
    pub(crate) async fn open_waves(&self, id: &DeliveryId, plan: &Plan, released: &ReleasedWaves) -> Result<(), Refusal> {
        if released.unopened > 0 {
            self.store.open_released(id, plan).await?;
            self.feed(id).await?;
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
            .change(id, &by.name, &repeats, |delivery, now| {
                let state = delivery.state.after(Action::Unschedule)?;
                let mut document = delivery.document.clone();
                document.changed_at = now;
                document.release = None;
                document.approval = None;
                Ok(Decision { state, document, answer: state, act: Some(("unschedule", json!({}))) })
            })
            .await?;
        if let Changed::Now(_) = changed {
            self.store.list_due(id, None).await?;
            // it may have been confirmed again meanwhile
            if self.store.state(id).await? == Some(DeliveryState::Scheduled) {
                self.store.list_due_at_once(id).await?;
            }
        }
        Ok(changed.answer())
    }

    /// How long ago a delivery was to be started: since it was confirmed or resumed, or its first wave was released.
    pub(crate) async fn start_pending_for(&self, id: &DeliveryId) -> Result<u32, StoreError> {
        let Some(delivery) = self.store.delivery(id).await?.filter(|d| d.state == DeliveryState::StartPending) else {
            return Ok(0);
        };
        let Some(plan) = &delivery.document.plan else { return Ok(0) };
        let released =
            self.store.waves(id, plan).await?.into_iter().filter(|w| w.state.is_released()).map(|w| w.released_at).min();
        let changed = u32::try_from(delivery.document.changed_at.as_second()).unwrap_or_default();
        Ok(unix_now().saturating_sub(changed.max(released.unwrap_or_default())))
    }

    /// Waves whose time has come and that nobody released yet: within their grace window, and beyond it.
    async fn waves_due(&self) -> Result<(usize, usize), StoreError> {
        let (now, mut due, mut overdue) = (unix_now(), 0, 0);
        for id in self.store.due(now).await? {
            let Some(delivery) = self.store.delivery(&id).await? else { continue };
            let Some(plan) = &delivery.document.plan else { continue };
            let waiting = |wave: &Wave| wave.state == WaveState::Waiting && wave.due <= now;
            for wave in self.store.waves(&id, plan).await?.into_iter().filter(waiting) {
                let is_over = wave.due > 0 && now - wave.due > plan.settings.grace_s();
                *if is_over { &mut overdue } else { &mut due } += 1;
            }
        }
        Ok((due, overdue))
    }

    /// The task's part: how many wait, how late the earliest is, how many waves are held.
    pub(crate) async fn observe_waves(&self) -> Result<(), StoreError> {
        let (scheduled, first) = self.store.scheduled().await?;
        // 0 is one that the slow pass put there
        let late = first.filter(|due| *due > 0).map_or(0, |due| unix_now().saturating_sub(due));
        let (due, overdue) = self.waves_due().await?;
        metrics::waves_due(due, overdue);
        let (mut held, mut deliveries) = (0, 0);
        for id in self.store.held().await? {
            let delivery = self.store.delivery(&id).await?.filter(|d| !d.state.has_ended());
            let waves = match delivery.as_ref().and_then(|d| d.document.plan.as_ref()) {
                Some(plan) => self.store.waves(&id, plan).await?.iter().filter(|wave| wave.is_held()).count(),
                None => 0,
            };
            held += waves;
            deliveries += usize::from(delivery.is_some_and(|d| d.state == DeliveryState::Held));
            if waves == 0 {
                self.store.list_held(&id, false).await?;
            }
        }
        metrics::deliveries(DeliveryState::Scheduled.word(), (scheduled as usize).saturating_sub(deliveries));
        metrics::deliveries(DeliveryState::Held.word(), deliveries);
        metrics::schedule(held, late);
        Ok(())
    }
}

/// Unix seconds as an instant.
pub fn instant(seconds: u32) -> Timestamp {
    Timestamp::from_second(i64::from(seconds)).unwrap_or_default()
}
