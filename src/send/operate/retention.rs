//! Retention: an ended delivery loses its tracking log, then its logs, and is deleted at last.
//!
//! The document is marked first, by compare-and-set with an audit entry. The parts are removed
//! afterwards, a few keys at a time. The next pass removes what a crash left. Every daemon may run
//! the pass.

use jiff::Timestamp;
use serde_json::json;

use super::removal::Removal;
use crate::{
    clock::unix_now,
    config::Config,
    daemon::Daemon,
    deliveries::{Decision, Deliveries, Refusal},
    domain::delivery::{Action, Delivery, DeliveryId, DeliveryState, RemovedLogs},
    feedback::StatisticsUpdates,
    live::Live,
    metrics,
    report::{Archives, write_durably},
    send::recover::Recounts,
    store::{RemovedParts, StoreError, chunks::LedgerStore, tracking::TrackingStore},
};

/// How many deliveries are read in one round trip.
const AT_A_TIME: usize = 500;
const DAY_S: f64 = 86_400.0;

/// The parts of one delivery whose time is over.
#[derive(Clone, Copy)]
struct ExpiredParts {
    /// The whole delivery.
    delivery: bool,
    logs: bool,
    tracking: bool,
}

/// Removes what was kept long enough.
#[derive(Clone)]
pub struct Retention {
    pub deliveries: Deliveries,
    pub ledgers: LedgerStore,
    pub tracking: TrackingStore,
    pub removal: Removal,
    pub statistics: StatisticsUpdates,
    pub recounts: Recounts,
    pub archives: Archives,
    pub config: Live<Config>,
    pub daemon: Daemon,
}

impl Retention {
    /// The task: one pass over all deliveries. Returns false if Redis did not answer.
    pub async fn run(&self) -> bool {
        let done = self.remove_expired().await;
        if let Err(error) = &done {
            error.log_failed_pass("the retention was cut off: the next pass goes on");
        }
        done.is_ok()
    }

    async fn remove_expired(&self) -> Result<(), StoreError> {
        if self.deliveries.store_is_held().await? {
            return Ok(());
        }
        let settings = &self.config.now().retention;
        let all = [settings.deliveries_days, settings.logs_days, settings.tracking_days];
        let Some(least) = all.into_iter().filter(|days| *days > 0.0).min_by(f64::total_cmp) else {
            return Ok(());
        };
        // a delivery that was created after `before` has ended after it: nothing has expired
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
                        tracing::error!(
                            delivery.id = %id,
                            %error,
                            "the expired parts of this delivery cannot be removed"
                        )
                    }
                    Ok(()) => {}
                }
                if self.daemon.shutdown.is_cancelled() {
                    return Ok(());
                }
            }
            // deletions make the list shorter: the next pass finds those that were passed over
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
        let (settings, document) = (&self.config.now().retention, &delivery.document);
        let ended = document.ended_at.unwrap_or(document.changed_at).as_second() as f64;
        let due = |days: f64| days > 0.0 && ended + days * DAY_S <= f64::from(unix_now());
        let expired = ExpiredParts {
            delivery: due(settings.deliveries_days),
            logs: due(settings.logs_days),
            tracking: due(settings.tracking_days),
        };
        let is_unmarked = expired.delivery
            || expired.logs && document.cleaned.is_none()
            || expired.tracking && document.tracking_cleaned_at.is_none();
        if is_unmarked
            && (!self.keep_archive(&delivery).await || !self.mark(&delivery, expired).await?)
        {
            return Ok(());
        }
        if expired.delivery {
            self.removal.remove_deleted(id).await?;
            metrics::retention_removed("deliveries");
            return Ok(());
        }
        if expired.tracking && !swept.tracking {
            self.tracking.remove_tracking(id).await?;
            self.deliveries
                .store
                .note_removed(id, RemovedParts { tracking: true, ..RemovedParts::default() })
                .await?;
            metrics::retention_removed("tracking");
        }
        if expired.logs && !swept.logs {
            self.removal.remove_older(id, u32::MAX, u32::MAX).await?;
            let chunks = document.plan.as_ref().map_or(0, |plan| plan.chunks);
            self.ledgers.remove_ledgers(id, chunks).await?;
            self.deliveries
                .store
                .note_removed(id, RemovedParts { logs: true, ..RemovedParts::default() })
                .await?;
            metrics::retention_removed("logs");
        }
        Ok(())
    }

    /// Marks in the document what is removed, and freezes the figures. False if somebody else
    /// changed the delivery meanwhile.
    async fn mark(&self, delivery: &Delivery, expired: ExpiredParts) -> Result<bool, Refusal> {
        let (now, mut document, mut state) =
            (Timestamp::now(), delivery.document.clone(), delivery.state);
        let is_whole = document.cleaned.is_none() && document.tracking_cleaned_at.is_none();
        if !expired.delivery && is_whole && document.has_started() {
            // counts the hits since the last hourly count; if that fails, nothing is removed
            self.statistics.compute(&delivery.id, false).await?;
        }
        let act = if expired.delivery {
            state = state.after(Action::Delete)?;
            (document.audience, document.recurrence) = (None, None);
            ("delete", json!({ "state": delivery.state.word(), "retention": true }))
        } else {
            let mut removed = Vec::new();
            if expired.tracking && document.tracking_cleaned_at.is_none() {
                document.tracking_cleaned_at = Some(now);
                removed.push("tracking");
            }
            if expired.logs && document.cleaned.is_none() {
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
        // only this revision is marked: somebody may have reopened the delivery meanwhile
        let marked = self
            .deliveries
            .commit(&delivery.id, Some(delivery), "versand", &[], decision)
            .await?
            .is_some();
        // removed parts do not come back, so the mark must not be lost either
        self.deliveries.await_durability().await?;
        Ok(marked)
    }

    /// Writes the archive, if archives are configured. False if the archive could not be written:
    /// then nothing may be removed.
    async fn keep_archive(&self, delivery: &Delivery) -> bool {
        let folder = &self.config.now().retention.archive_dir;
        // a delivery without its logs is not archived any more; if it lost only its tracking log,
        // an archive that exists is kept
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
                tracing::warn!(
                    delivery.id = %delivery.id,
                    %error,
                    "the delivery cannot be archived: nothing of it is removed"
                );
                return false;
            }
        };
        let written = write_durably(&file, &format!("{:016x}", self.daemon.owner), archive).await;
        if let Err(error) = &written {
            tracing::error!(
                delivery.id = %delivery.id,
                file = %file.display(),
                %error,
                "the archive cannot be written: nothing of the delivery is removed"
            );
        }
        written.is_ok()
    }
}
