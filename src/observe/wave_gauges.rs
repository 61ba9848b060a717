//! TODO head

use super::delivery_gauges::DeliveryGauges;
use crate::{
    clock::unix_now,
    domain::{
        delivery::{DeliveryId, DeliveryState},
        schedule::{Wave, WaveState},
        unix_seconds,
    },
    metrics,
    store::StoreError,
};

impl DeliveryGauges {
    /// How long ago a delivery was to be started: since it was confirmed or resumed, or its first wave was released.
    pub(crate) async fn start_pending_for(&self, id: &DeliveryId) -> Result<u32, StoreError> {
        let Some(delivery) = self
            .deliveries
            .store
            .delivery(id)
            .await?
            .filter(|d| d.state == DeliveryState::StartPending)
        else {
            return Ok(0);
        };
        let Some(plan) = &delivery.document.plan else { return Ok(0) };
        let released = self
            .schedules
            .waves(id, plan)
            .await?
            .into_iter()
            .filter(|w| w.state.is_released())
            .map(|w| w.released_at)
            .min();
        let changed = unix_seconds(delivery.document.changed_at);
        Ok(unix_now().saturating_sub(changed.max(released.unwrap_or_default())))
    }

    /// Waves whose time has come and that nobody released yet: within their grace window, and beyond it.
    async fn waves_due(&self) -> Result<(usize, usize), StoreError> {
        let (now, mut due, mut overdue) = (unix_now(), 0, 0);
        for id in self.schedules.due_deliveries(now).await? {
            let Some(delivery) = self.deliveries.store.delivery(&id).await? else { continue };
            let Some(plan) = &delivery.document.plan else { continue };
            let waiting = |wave: &Wave| wave.state == WaveState::Waiting && wave.due <= now;
            for wave in self.schedules.waves(&id, plan).await?.into_iter().filter(waiting) {
                let is_over = wave.is_overdue(now, plan.settings.grace_s());
                *if is_over { &mut overdue } else { &mut due } += 1;
            }
        }
        Ok((due, overdue))
    }

    /// The task's part: how many wait, how late the earliest is, how many waves are held.
    pub(crate) async fn observe_waves(&self) -> Result<(), StoreError> {
        let (scheduled, first) = self.schedules.waiting_deliveries().await?;
        // 0 is one that the slow pass put there
        let late = first.filter(|due| *due > 0).map_or(0, |due| unix_now().saturating_sub(due));
        let (due, overdue) = self.waves_due().await?;
        metrics::waves_due(due, overdue);
        let (mut held, mut deliveries) = (0, 0);
        for id in self.schedules.deliveries_with_held_waves().await? {
            let delivery =
                self.deliveries.store.delivery(&id).await?.filter(|d| !d.state.has_ended());
            let waves = match delivery.as_ref().and_then(|d| d.document.plan.as_ref()) {
                Some(plan) => self
                    .schedules
                    .waves(&id, plan)
                    .await?
                    .iter()
                    .filter(|wave| wave.is_held())
                    .count(),
                None => 0,
            };
            held += waves;
            deliveries += usize::from(delivery.is_some_and(|d| d.state == DeliveryState::Held));
            if waves == 0 {
                self.schedules.list_held(&id, false).await?;
            }
        }
        metrics::deliveries(
            DeliveryState::Scheduled.word(),
            (scheduled as usize).saturating_sub(deliveries),
        );
        metrics::deliveries(DeliveryState::Held.word(), deliveries);
        metrics::schedule(held, late);
        Ok(())
    }
}
