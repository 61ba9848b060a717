//! The reconciler: repairs deliveries that stand still, each second and on every daemon.
//!
//! Every repair may be done twice without harm.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{halt_repair::HaltRepair, liveness::Liveness, sending_repair::SendingRepair};
use crate::{
    clock::unix_now,
    config::Config,
    deliveries::{Deliveries, Refusal, each_delivery},
    domain::delivery::{Delivery, DeliveryId, DeliveryState},
    queue::QueueError,
    send::StepJobs,
    store::{StoreError, audience::AudienceStore, may_pass},
};

/// A start that has not begun after this time is queued again.
const START_PATIENCE: Duration = Duration::from_secs(3);
/// Deliveries that are checked at the same time: a large one must not hold up the others.
const AT_A_TIME: usize = 16;

/// Checks the deliveries that the daemon moves on by itself.
#[derive(Clone)]
pub struct Reconciler {
    pub deliveries: Deliveries,
    pub audiences: AudienceStore,
    pub sending: SendingRepair,
    pub halts: HaltRepair,
    pub jobs: StepJobs,
    pub liveness: Liveness,
    pub config: Arc<Config>,
}

impl Reconciler {
    /// The task: runs one pass.
    ///
    /// Returns false if Redis did not answer at some point. All observations of liveness are
    /// forgotten in that case.
    pub async fn reconcile_all(&self) -> bool {
        let reconciled = self.reconcile().await;
        if let Err(error) = &reconciled {
            self.liveness.forget_all();
            error.log_failed_pass("the reconciler waits for Redis");
        }
        reconciled.is_ok()
    }

    /// Runs one pass over the deliveries that move by themselves.
    ///
    /// # Errors
    /// If Redis does not answer. The next pass does the rest.
    pub async fn reconcile(&self) -> Result<(), StoreError> {
        self.liveness.note_run(&self.deliveries.redis.run_id().await?);
        // while the store is held, only preparations go on
        let held = self.deliveries.store_is_held().await?;
        let moving = self.deliveries.store.moving().await?;
        let failure = "the reconciler cannot check this delivery";
        let check = async |id| match self.check(&id, held).await {
            // the queue lives in the same Redis: its silence ends the pass too
            Err(Refusal::Queue(QueueError::Unavailable(error))) if may_pass(&error) => {
                Err(Refusal::Unavailable(error.into()))
            }
            checked => checked,
        };
        each_delivery(moving, AT_A_TIME, failure, check).await?;
        self.liveness.forget_old(Instant::now());
        Ok(())
    }

    async fn check(&self, id: &DeliveryId, held: bool) -> Result<(), Refusal> {
        let Some(delivery) = self.deliveries.read(id).await? else {
            return Ok(self.deliveries.store.unlist_moving(id).await?);
        };
        self.deliveries.heads.note(id, &delivery.document.audit).await?;
        match delivery.state {
            DeliveryState::Preparing => self.repair_preparation(&delivery).await,
            state if held && state.is_moving() => Ok(()),
            DeliveryState::StartPending => self.repair_start(&delivery).await,
            DeliveryState::InProgress => self.sending.keep_sending(&delivery).await,
            DeliveryState::Pausing | DeliveryState::Stopping => {
                self.halts.bring_to_rest(&delivery).await
            }
            _ => Ok(self.unlist(id).await?),
        }
    }

    /// Removes a delivery at rest from the list of moving deliveries.
    async fn unlist(&self, id: &DeliveryId) -> Result<(), StoreError> {
        let store = &self.deliveries.store;
        store.unlist_moving(id).await?;
        // a person may have set the delivery in motion in between
        if store.state(id).await?.is_some_and(DeliveryState::is_moving) {
            store.list_moving(id).await?;
        }
        Ok(())
    }

    /// Queues a preparation again that has shown no progress for a whole lease.
    async fn repair_preparation(&self, delivery: &Delivery) -> Result<(), Refusal> {
        let progress = self.audiences.preparation(&delivery.id).await?;
        let mark = (delivery.revision, progress.beat);
        let name = format!("prepare {}", delivery.id);
        let unchanged = self.liveness.unchanged_for(&name, mark, Instant::now());
        if unchanged >= self.config.send.lease() {
            self.begin_anew(&name);
            self.jobs.enqueue_preparation(&delivery.id, u64::from(unix_now())).await?;
        }
        Ok(())
    }

    /// Queues a start again that has not begun.
    async fn repair_start(&self, delivery: &Delivery) -> Result<(), Refusal> {
        let name = format!("start {}", delivery.id);
        let mark = (delivery.revision, 0);
        if self.liveness.unchanged_for(&name, mark, Instant::now()) >= START_PATIENCE {
            self.begin_anew(&name);
            self.jobs.enqueue_start(&delivery.id, u64::from(unix_now())).await?;
        }
        Ok(())
    }

    /// Gives the job that is queued now the full time: another mark starts the count anew.
    fn begin_anew(&self, name: &str) {
        self.liveness.unchanged_for(name, (0, 0), Instant::now());
    }
}
