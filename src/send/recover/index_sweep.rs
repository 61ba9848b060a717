//! The index sweep: finds deliveries that fell off a list, and finishes interrupted removals.
//!
//! The index contains every delivery. The lists of moving, due and recurring deliveries are hints.

use crate::{
    clock::unix_now,
    deliveries::Deliveries,
    domain::delivery::DeliveryState,
    send::operate::Removal,
    store::{StoreError, chunks::ChunkLists, schedule::ScheduleStore},
};

/// Deliveries whose ids are read in one round trip.
const AT_A_TIME: usize = 500;

/// Puts deliveries back on the lists they belong to.
#[derive(Clone)]
pub struct IndexSweep {
    pub deliveries: Deliveries,
    pub schedules: ScheduleStore,
    pub chunks: ChunkLists,
    pub removal: Removal,
}

impl IndexSweep {
    /// The task: runs at the start, and once a minute on every daemon.
    ///
    /// Returns false if the pass failed.
    pub async fn sweep(&self) -> bool {
        let swept = self.sweep_lists().await;
        if let Err(error) = &swept {
            error.log_failed_pass("the index sweep failed and is repeated in a minute");
        }
        swept.is_ok()
    }

    async fn sweep_lists(&self) -> Result<(), StoreError> {
        let store = &self.deliveries.store;
        let mut deleted = Vec::new();
        for offset in (0..).step_by(AT_A_TIME) {
            let ids = store.delivery_ids(offset, AT_A_TIME).await?;
            store.relist_recurrences(&ids).await?;
            for (id, state) in ids.iter().zip(store.states(&ids).await?) {
                match state {
                    Some(DeliveryState::Deleted) => deleted.push(id.clone()),
                    Some(state) if state.is_moving() => store.list_moving(id).await?,
                    // a new entry is due at once; the next pass over due waves corrects its time
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
        // a removal shortens the index, which would shift the offsets above
        for id in deleted {
            match self.removal.remove_deleted(&id).await {
                // a damaged delivery must not keep the others from being removed
                Err(error) if !error.may_pass() => {
                    error.log_failed_pass("a deleted delivery cannot be removed");
                }
                removed => removed?,
            }
        }
        Ok(())
    }

    /// Makes each open chunk of a moving delivery due now. The clock was perhaps set back.
    ///
    /// A chunk that waits for a time on the old clock is checked now, and waits again if necessary.
    pub async fn make_all_chunks_ready(&self) {
        let marked = async {
            for id in self.deliveries.store.moving().await? {
                self.chunks.mark_all_ready(&id, unix_now()).await?;
            }
            Ok::<_, StoreError>(())
        };
        if let Err(error) = marked.await {
            error.log_failed_pass("the chunks that wait for a time cannot be made ready");
        }
    }
}
