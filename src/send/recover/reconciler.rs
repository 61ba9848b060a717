//! The reconciler: finds what a crash left behind, on every replica, once a second. Whatever it does may be done twice.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{liveness::Liveness, redis_state::RedisState, sending_repair::SendingRepair};
use crate::{
    clock::unix_now,
    config::Config,
    deliveries::{Deliveries, Refusal, each_delivery},
    domain::delivery::{Delivery, DeliveryId, DeliveryState},
    send::StepJobs,
    store::{StoreError, audience::AudienceStore},
};

/// A step whose job was not begun for so long is enqueued again.
pub(super) const STEP_PATIENCE: Duration = Duration::from_secs(3);
/// Deliveries looked after at a time: the pass must not wait for the largest one.
const AT_A_TIME: usize = 16;

#[derive(Clone)]
pub struct Reconciler {
    pub deliveries: Deliveries,
    pub audiences: AudienceStore,
    pub sending: SendingRepair,
    pub jobs: StepJobs,
    pub liveness: Liveness,
    pub config: Arc<Config>,
    pub redis_state: RedisState,
}

impl Reconciler {
    /// The task: reconciles, and forgets what it has seen if Redis did not answer throughout. Like every task it says whether it succeeded.
    pub async fn reconcile_all(&self) -> bool {
        let reconciled = self.reconcile().await;
        if let Err(error) = &reconciled {
            self.liveness.reset();
            // that Redis is away was said
            if self.redis_state.writable.load(Ordering::Relaxed) {
                tracing::warn!(%error, "the reconciler waits for Redis");
            }
        }
        reconciled.is_ok()
    }

    /// Looks after every delivery that is moving.
    pub async fn reconcile(&self) -> Result<(), StoreError> {
        self.liveness.run(&self.deliveries.redis.run_id().await?);
        let moving = self.deliveries.store.moving().await?;
        let failure = "the reconciler cannot look after it";
        each_delivery(moving, AT_A_TIME, failure, async |id| self.look_after(&id).await).await?;
        self.liveness.tidy(Instant::now());
        Ok(())
    }

    async fn look_after(&self, id: &DeliveryId) -> Result<(), Refusal> {
        let Some(delivery) = self.deliveries.store.delivery(id).await? else {
            return Ok(self.deliveries.store.unlist_moving(id).await?);
        };
        self.deliveries.note_head(id, &delivery.document.audit).await?;
        match delivery.state {
            DeliveryState::Preparing => self.revive_preparation(&delivery).await,
            DeliveryState::StartPending => self.revive_start(&delivery).await,
            DeliveryState::InProgress => self.sending.keep_sending(&delivery).await,
            DeliveryState::Pausing | DeliveryState::Stopping => {
                self.sending.bring_to_rest(&delivery).await
            }
            _ => {
                self.deliveries.store.unlist_moving(id).await?;
                // it may have been set in motion in between
                if self.deliveries.store.state(id).await?.is_some_and(DeliveryState::is_moving) {
                    self.deliveries.store.list_moving(id).await?;
                }
                Ok(())
            }
        }
    }

    async fn revive_preparation(&self, delivery: &Delivery) -> Result<(), Refusal> {
        let progress = self.audiences.preparation(&delivery.id).await?;
        let still = self.liveness.see(
            &format!("prepare {}", delivery.id),
            (delivery.revision, progress.beat),
            Instant::now(),
        );
        if still >= self.config.send.lease() {
            self.liveness.see(&format!("prepare {}", delivery.id), (0, 0), Instant::now());
            self.jobs.enqueue_preparation(&delivery.id, u64::from(unix_now())).await?;
        }
        Ok(())
    }

    async fn revive_start(&self, delivery: &Delivery) -> Result<(), Refusal> {
        let name = format!("start {}", delivery.id);
        if self.liveness.see(&name, (delivery.revision, 0), Instant::now()) >= STEP_PATIENCE {
            self.liveness.see(&name, (0, 0), Instant::now());
            self.jobs.enqueue_start(&delivery.id, u64::from(unix_now())).await?;
        }
        Ok(())
    }
}
