//! How far a delivery is, as the API shows it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

use super::api::Api;
use crate::{
    clock::unix_now,
    deliveries::Refusal,
    domain::{
        delivery::{Delivery, DeliveryState, Document},
        instant,
        ledger::Counts,
        schedule::WaveState,
        tracking::Kpis,
    },
    store::audience::PreparationProgress,
};

/// How far a delivery is: its state and its counts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Progress {
    /// The state.
    pub state: DeliveryState,
    /// An SMTP test: every transaction ends after RCPT, and nothing is delivered.
    pub smtp_test: bool,
    /// How far the preparation is; only while it runs.
    pub preparation: Option<PreparationProgress>,
    /// Recipients by status; none before the start.
    pub counts: Option<Counts>,
    /// Key figures; none before the start.
    pub kpis: Option<Kpis>,
    /// When retention removed the logs. Counts and KPIs are then those of that moment.
    pub cleaned_at: Option<Timestamp>,
    /// When retention removed the tracking log.
    pub tracking_cleaned_at: Option<Timestamp>,
    /// The poisoned chunks. They have no jobs until a person retries them.
    #[serde(rename = "set_aside")]
    pub poisoned: BTreeSet<u32>,
    /// When the circuit breaker of the delivery closes; none while it is closed, or while the
    /// delivery is not in progress.
    pub paused_until: Option<Timestamp>,
    /// The waves of a prepared delivery.
    pub waves: Option<WaveCounts>,
}

/// Waves by state, and when the next one is due.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct WaveCounts {
    /// Waves that wait for their time.
    pub waiting: u64,
    /// Waves that may be sent.
    pub released: u64,
    /// Overdue waves that wait for a person.
    pub held: u64,
    /// When the next waiting wave is due; none if there is none, or if it is due at once.
    pub next_due: Option<Timestamp>,
}

async fn waves_of(api: &Api, delivery: &Delivery) -> Result<Option<WaveCounts>, Refusal> {
    let Some(plan) = delivery.document.plan.as_ref().filter(|_| {
        delivery.state != DeliveryState::Deleted && delivery.document.cleaned.is_none()
    }) else {
        return Ok(None);
    };
    let mut counts = WaveCounts::default();
    for wave in api.stores.schedules.waves(&delivery.id, plan).await? {
        match wave.state {
            WaveState::Waiting => {
                counts.waiting += 1;
                counts.next_due = counts.next_due.or((wave.due > 0).then(|| instant(wave.due)));
            }
            WaveState::Held => counts.held += 1,
            WaveState::Released | WaveState::Open => counts.released += 1,
        }
    }
    Ok(Some(counts))
}

/// Reads how far a delivery is.
///
/// # Errors
/// [`Refusal::Unavailable`] if Redis does not answer.
pub async fn progress_of(api: &Api, delivery: &Delivery) -> Result<Progress, Refusal> {
    let preparation = match delivery.state {
        DeliveryState::Preparing => Some(preparation_of(api, delivery).await?),
        _ => None,
    };
    let started = delivery.document.plan.as_ref().filter(|_| delivery.document.has_started());
    let (counts, kpis) = match started {
        Some(plan) => {
            let counts = match &delivery.document.cleaned {
                Some(cleaned) => cleaned.counts,
                None => api.stores.ledgers.counts(&delivery.id).await?,
            };
            let opens = api.stores.tracking.statistics(&delivery.id).await?;
            (
                Some(counts),
                Some(Kpis::of(&counts, plan.excluded, plan.settings.smtp_test, opens.as_ref())),
            )
        }
        None => (None, None),
    };
    let poisoned = match started.is_some() && !delivery.state.has_ended() {
        true => api.stores.chunks.poisoned(&delivery.id).await?,
        false => BTreeSet::new(),
    };
    let waves = waves_of(api, delivery).await?;
    let paused_until = match delivery.state {
        DeliveryState::InProgress => {
            Some(api.stores.limits.delivery_breaker_until(&delivery.id).await?)
                .filter(|until| *until > unix_now())
                .map(instant)
        }
        _ => None,
    };
    let own = delivery.document.definition.settings.smtp_test.unwrap_or(false);
    let smtp_test = delivery.document.plan.as_ref().map_or(own, |plan| plan.settings.smtp_test);
    let cleaned_at = delivery.document.cleaned.as_ref().map(|cleaned| cleaned.cleaned_at);
    let tracking_cleaned_at = delivery.document.tracking_cleaned_at;
    let state = delivery.state;
    Ok(Progress {
        state,
        smtp_test,
        preparation,
        counts,
        kpis,
        cleaned_at,
        tracking_cleaned_at,
        poisoned,
        paused_until,
        waves,
    })
}

/// How far the running preparation is. Redis may still hold the progress of an earlier one.
async fn preparation_of(api: &Api, delivery: &Delivery) -> Result<PreparationProgress, Refusal> {
    let stored = api.stores.audiences.preparation(&delivery.id).await?;
    let Document { generation, audience, .. } = &delivery.document;
    let of = audience.as_ref().map_or(0, |audience| audience.recipients);
    let none = PreparationProgress { generation: *generation, done: 0, of, beat: 0 };
    Ok(if stored.generation == *generation { stored } else { none })
}
