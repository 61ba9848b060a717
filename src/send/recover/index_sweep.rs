//! The slow pass: the index knows every delivery, so what fell off the list of moving ones or was deleted in part is found.

use crate::{deliveries::Context, domain::delivery::DeliveryState, store::StoreError};

/// Deliveries looked at in one round trip.
const AT_A_TIME: usize = 500;

impl Context {
    /// The task: at the start, and once a minute on every replica.
    pub async fn heal(&self) -> bool {
        let done = self.heal_lists().await;
        if let Err(error) = &done {
            tracing::warn!(%error, "the lists of deliveries are looked at again in a minute");
        }
        done.is_ok()
    }

    /// The lists are hints, the states are not.
    async fn heal_lists(&self) -> Result<(), StoreError> {
        let mut deleted = Vec::new();
        for offset in (0..).step_by(AT_A_TIME) {
            let ids = self.store.delivery_ids(offset, AT_A_TIME).await?;
            self.store.heal_awake(&ids).await?;
            for (id, state) in ids.iter().zip(self.store.states(&ids).await?) {
                match state {
                    Some(DeliveryState::Deleted) => deleted.push(id.clone()),
                    Some(state) if state.is_moving() => self.store.in_motion(id).await?,
                    // the next tick puts it where it belongs
                    Some(DeliveryState::Scheduled | DeliveryState::Held) => self.store.list_due_at_once(id).await?,
                    _ => {}
                }
            }
            if ids.len() < AT_A_TIME {
                break;
            }
        }
        // afterwards, for it makes the index shorter: a removal that was cut short is finished
        for id in deleted {
            self.clear_away(&id).await?;
        }
        Ok(())
    }
}
