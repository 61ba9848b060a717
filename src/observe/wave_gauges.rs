//! The gauges of waves: how many are due, overdue or held, and how late the earliest is.

use crate::{
    clock::unix_now,
    deliveries::Deliveries,
    domain::{
        delivery::{DeliveryId, DeliveryState},
        schedule::{Wave, WaveState},
        unix_seconds,
    },
    metrics,
    store::{StoreError, schedule::ScheduleStore},
};

/// Sets the gauges of waves.
#[derive(Clone)]
pub struct WaveGauges {
    pub deliveries: Deliveries,
    pub schedules: ScheduleStore,
}

impl WaveGauges {
    /// Returns for how many seconds a delivery has waited for its start; 0 if it does not wait.
    ///
    /// The wait begins when the delivery was confirmed or resumed, or when its first wave was
    /// released. The later time counts.
    pub(super) async fn start_pending_for(&self, id: &DeliveryId) -> Result<u32, StoreError> {
        let delivery = self.deliveries.read(id).await?;
        let Some(delivery) = delivery.filter(|d| d.state == DeliveryState::StartPending) else {
            return Ok(0);
        };
        let Some(plan) = &delivery.document.plan else { return Ok(0) };
        let waves = self.schedules.waves(id, plan).await?;
        let released =
            waves.into_iter().filter(|w| w.state.is_released()).map(|w| w.released_at).min();
        let changed = unix_seconds(delivery.document.changed_at);
        Ok(unix_now().saturating_sub(changed.max(released.unwrap_or_default())))
    }

    /// Sets the gauges of scheduled and held deliveries and of their waves.
    pub(super) async fn observe(&self) -> Result<(), StoreError> {
        let (scheduled, first) = self.schedules.waiting_deliveries().await?;
        // the index sweep lists a delivery with the time 0, which is not late
        let late_s = first.filter(|due| *due > 0).map_or(0, |due| unix_now().saturating_sub(due));
        let (due, overdue) = self.waves_due().await?;
        metrics::waves_due(due, overdue);
        let (held_waves, held_deliveries) = self.held().await?;
        metrics::deliveries(
            DeliveryState::Scheduled.word(),
            (scheduled as usize).saturating_sub(held_deliveries),
        );
        metrics::deliveries(DeliveryState::Held.word(), held_deliveries);
        metrics::schedule(held_waves, late_s);
        Ok(())
    }

    /// Counts the due waves that are neither released nor held: within their grace window, and
    /// beyond it.
    async fn waves_due(&self) -> Result<(usize, usize), StoreError> {
        let (now, mut due, mut overdue) = (unix_now(), 0, 0);
        for id in self.schedules.due_deliveries(now).await? {
            let Some(delivery) = self.deliveries.read(&id).await? else { continue };
            let Some(plan) = &delivery.document.plan else { continue };
            let is_due = |wave: &Wave| wave.state == WaveState::Waiting && wave.due <= now;
            for wave in self.schedules.waves(&id, plan).await?.into_iter().filter(is_due) {
                let is_overdue = wave.is_overdue(now, plan.settings.grace_s());
                *if is_overdue { &mut overdue } else { &mut due } += 1;
            }
        }
        Ok((due, overdue))
    }

    /// Counts held waves and held deliveries. A delivery without held waves leaves the list.
    async fn held(&self) -> Result<(usize, usize), StoreError> {
        let (mut held_waves, mut held_deliveries) = (0, 0);
        for id in self.schedules.deliveries_with_held_waves().await? {
            let delivery = self.deliveries.read(&id).await?;
            let delivery = delivery.filter(|d| !d.state.has_ended());
            let waves = match delivery.as_ref().and_then(|d| d.document.plan.as_ref()) {
                Some(plan) => {
                    let waves = self.schedules.waves(&id, plan).await?;
                    waves.iter().filter(|wave| wave.is_held()).count()
                }
                None => 0,
            };
            held_waves += waves;
            held_deliveries +=
                usize::from(delivery.is_some_and(|d| d.state == DeliveryState::Held));
            if waves == 0 {
                self.schedules.list_held(&id, false).await?;
            }
        }
        Ok((held_waves, held_deliveries))
    }
}
