//! The slow pass: the index knows every delivery, so what fell off the list of moving ones or was deleted in part is found.

use crate::{
    clock::unix_now,
    deliveries::Deliveries,
    domain::delivery::DeliveryState,
    send::operate::Removal,
    store::{StoreError, chunks::ChunkLists, schedule::ScheduleStore},
};

/// Deliveries looked at in one round trip.
const AT_A_TIME: usize = 500;

#[derive(Clone)]
pub struct IndexSweep {
    pub deliveries: Deliveries,
    pub schedules: ScheduleStore,
    pub chunks: ChunkLists,
    pub removal: Removal,
}

impl IndexSweep {
    /// The task: at the start, and once a minute on every replica.
    pub async fn sweep(&self) -> bool {
        let done = self.sweep_lists().await;
        if let Err(error) = &done {
            tracing::warn!(%error, "the lists of deliveries are looked at again in a minute");
        }
        done.is_ok()
    }

    /// The lists are hints, the states are not.
    async fn sweep_lists(&self) -> Result<(), StoreError> {
        let mut deleted = Vec::new();
        for offset in (0..).step_by(AT_A_TIME) {
            let ids = self.deliveries.store.delivery_ids(offset, AT_A_TIME).await?;
            self.deliveries.store.relist_recurrences(&ids).await?;
            for (id, state) in ids.iter().zip(self.deliveries.store.states(&ids).await?) {
                match state {
                    Some(DeliveryState::Deleted) => deleted.push(id.clone()),
                    Some(state) if state.is_moving() => {
                        self.deliveries.store.list_moving(id).await?
                    }
                    // the next tick puts it where it belongs
                    Some(DeliveryState::Scheduled | DeliveryState::Held) => {
                        self.schedules.relist_due(id).await?
                    }
                    _ => {}
                }
            }
            if ids.len() < AT_A_TIME {
                break;
            }
        }
        // afterwards, for it makes the index shorter: a removal that was cut short is finished
        for id in deleted {
            self.removal.remove_deleted(&id).await?;
        }
        Ok(())
    }

    /// The clock may have been set back: what waits for a time on the old one is looked at now, and waits again if it has to.
    pub async fn look_at_all(&self) {
        let look = async {
            for id in self.deliveries.store.moving().await? {
                self.chunks.mark_all_ready(&id, unix_now()).await?;
            }
            Ok::<_, StoreError>(())
        };
        if let Err(error) = look.await {
            tracing::warn!(%error, "chunks that wait for a time are not looked at again");
        }
    }
}
