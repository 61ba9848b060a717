//! Retention: deliveries that ended long ago lose their tracking log, then their logs, and then are deleted.
//!
//! A delivery is marked first, by compare-and-set with an audit entry, and its parts are removed after, a few keys at a time. What
//! a crash leaves is removed by the next pass; every replica may run it.

use super::removal::Removal;
use crate::clock::unix_now;
use crate::config::Config;
use crate::daemon::Daemon;
use crate::deliveries::Deliveries;
use crate::feedback::StatisticsUpdates;
use crate::report::Archives;
use crate::send::recover::Recounts;
use jiff::Timestamp;
use serde_json::json;
use std::sync::Arc;

use crate::{
    deliveries::{Decision, Refusal},
    domain::delivery::{Action, Delivery, DeliveryId, DeliveryState, RemovedLogs},
    metrics,
    report::write_durably,
    store::{RemovedParts, StoreError},
};

/// Deliveries looked at in one round trip.
const AT_A_TIME: usize = 500;
const DAY_S: f64 = 86_400.0;

#[derive(Clone)]
pub struct Retention {
    pub deliveries: Deliveries,
    pub removal: Removal,
    pub statistics: StatisticsUpdates,
    pub recounts: Recounts,
    pub archives: Archives,
    pub config: Arc<Config>,
    pub daemon: Daemon,
}

impl Retention {
    /// The task.
    pub async fn run(&self) -> bool {
        let done = self.remove_expired().await;
        if let Err(error) = &done {
            tracing::warn!(%error, "what is kept too long is looked at again at the next pass");
        }
        done.is_ok()
    }

    async fn remove_expired(&self) -> Result<(), StoreError> {
        let settings = &self.config.retention;
        let all = [settings.deliveries_days, settings.logs_days, settings.tracking_days];
        let Some(least) = all.into_iter().filter(|days| *days > 0.0).min_by(f64::total_cmp) else {
            return Ok(());
        };
        // what was created later has not ended so long ago
        let before = f64::from(unix_now()) - least * DAY_S;
        let wanted =
            RemovedParts { logs: settings.logs_days > 0.0, tracking: settings.tracking_days > 0.0 };
        for offset in (0..).step_by(AT_A_TIME) {
            let ids = self.deliveries.store.created_before(before, offset, AT_A_TIME).await?;
            for (id, (state, swept)) in
                ids.iter().zip(self.deliveries.store.removed_parts(&ids).await?)
            {
                let ended =
                    state.is_some_and(|state| state.has_ended() && state != DeliveryState::Deleted);
                let done = settings.deliveries_days == 0.0 && swept.covers(wanted);
                if !ended || done {
                    continue;
                }
                match self.remove_expired_of(id, swept).await {
                    Err(Refusal::Unavailable(error)) if error.may_pass() => return Err(error),
                    Err(error) => {
                        tracing::error!(delivery.id = %id, %error, "it cannot be cleaned")
                    }
                    Ok(()) => {}
                }
                if self.daemon.shutdown.is_cancelled() {
                    return Ok(());
                }
            }
            // a deletion makes the list shorter: who is passed over is found by the next pass
            if ids.len() < AT_A_TIME {
                break;
            }
        }
        Ok(())
    }

    async fn remove_expired_of(&self, id: &DeliveryId, swept: RemovedParts) -> Result<(), Refusal> {
        let Some(delivery) = self
            .deliveries
            .store
            .delivery(id)
            .await?
            .filter(|d| d.state.has_ended() && d.state != DeliveryState::Deleted)
        else {
            return Ok(());
        };
        let (settings, document) = (&self.config.retention, &delivery.document);
        let ended = document.ended_at.unwrap_or(document.changed_at).as_second() as f64;
        let due = |days: f64| days > 0.0 && ended + days * DAY_S <= f64::from(unix_now());
        let (delete, logs, tracking) =
            (due(settings.deliveries_days), due(settings.logs_days), due(settings.tracking_days));
        let marks = delete
            || logs && document.cleaned.is_none()
            || tracking && document.tracking_cleaned_at.is_none();
        if marks
            && (!self.keep_archive(&delivery).await
                || !self.mark(&delivery, (delete, logs, tracking)).await?)
        {
            return Ok(());
        }
        if delete {
            self.removal.remove_deleted(id).await?;
            metrics::retention_removed("deliveries");
            return Ok(());
        }
        if tracking && !swept.tracking {
            self.removal.tracking.remove_tracking(id).await?;
            self.deliveries
                .store
                .note_removed(id, RemovedParts { tracking: true, ..RemovedParts::default() })
                .await?;
            metrics::retention_removed("tracking");
        }
        if logs && !swept.logs {
            self.removal.remove_older(id, u32::MAX, u32::MAX).await?;
            self.removal
                .ledgers
                .remove_ledgers(id, document.plan.as_ref().map_or(0, |plan| plan.chunks))
                .await?;
            self.deliveries
                .store
                .note_removed(id, RemovedParts { logs: true, ..RemovedParts::default() })
                .await?;
            metrics::retention_removed("logs");
        }
        Ok(())
    }

    /// Says in the document what is to be removed, and freezes its figures. False if somebody else changed it meanwhile.
    async fn mark(
        &self,
        delivery: &Delivery,
        (delete, logs, tracking): (bool, bool, bool),
    ) -> Result<bool, Refusal> {
        let (now, mut document, mut state) =
            (Timestamp::now(), delivery.document.clone(), delivery.state);
        let is_whole = document.cleaned.is_none() && document.tracking_cleaned_at.is_none();
        if !delete && is_whole && document.has_started() {
            // what came in since the last hour; if that fails nothing is removed
            self.statistics.compute(&delivery.id, false).await?;
        }
        let act = if delete {
            state = state.after(Action::Delete)?;
            (document.audience, document.recurrence) = (None, None);
            ("delete", json!({ "state": delivery.state.word(), "retention": true }))
        } else {
            let mut removed = Vec::new();
            if tracking && document.tracking_cleaned_at.is_none() {
                document.tracking_cleaned_at = Some(now);
                removed.push("tracking");
            }
            if logs && document.cleaned.is_none() {
                let counts = match document.plan.as_ref().filter(|_| document.has_started()) {
                    Some(plan) => self.recounts.recount(delivery, plan).await?.counts,
                    None => Default::default(),
                };
                document.cleaned = Some(RemovedLogs { cleaned_at: now, counts });
                removed.push("logs");
            }
            ("clean", json!({ "removed": removed }))
        };
        let decision = Decision { state, document, answer: (), act: Some(act) };
        // not with a newer revision: it may have been opened again
        let marked = self
            .deliveries
            .commit(&delivery.id, delivery.revision, "versand", &[], decision)
            .await?
            .is_some();
        // what is removed stays removed; so must be what says so
        self.deliveries.redis.await_durability().await?;
        Ok(marked)
    }

    /// Writes the archive, if there is to be one. False if it is not there: then nothing may be removed.
    async fn keep_archive(&self, delivery: &Delivery) -> bool {
        let folder = &self.config.retention.archive_dir;
        // what has lost its logs was archived before, and so was what has lost its tracking log
        let document = &delivery.document;
        if folder.as_os_str().is_empty() || document.cleaned.is_some() {
            return true;
        }
        let file = folder.join(format!("{}.ndjson.zst", delivery.id));
        if document.tracking_cleaned_at.is_some() && file.exists() {
            return true;
        }
        let archive = match self.archives.stream(delivery.clone()).await {
            Ok(archive) => archive,
            Err(error) => {
                tracing::warn!(delivery.id = %delivery.id, %error, "it cannot be archived: nothing of it is removed");
                return false;
            }
        };
        let written = write_durably(&file, &format!("{:016x}", self.daemon.owner), archive).await;
        if let Err(error) = &written {
            tracing::error!(delivery.id = %delivery.id, file = %file.display(), %error, "its archive cannot be written: nothing is removed");
        }
        written.is_ok()
    }
}
