//! The wiring of the room `send::chunk`.

use super::shared::{Parts, SharedHandles};
use crate::send::{
    chunk::{ChunkSender, ChunkSending, LateExclusions, LedgerAccess},
    recover::PoisonedChunks,
};

impl SharedHandles {
    pub(super) fn chunks(&self, poisoned: &PoisonedChunks) -> ChunkSender {
        let Parts { stores, daemon, config, .. } = &self.parts;
        ChunkSender {
            deliveries: self.deliveries.clone(),
            schedules: stores.schedules.clone(),
            poisoned: poisoned.clone(),
            fair_queue: self.fair_queue.clone(),
            sending: ChunkSending {
                audiences: stores.audiences.clone(),
                out: self.out.clone(),
                late_exclusions: LateExclusions {
                    checks: self.checks.clone(),
                    daemon: daemon.clone(),
                },
                access: LedgerAccess {
                    deliveries: self.deliveries.clone(),
                    holder: self.holder.clone(),
                    acceptances: self.acceptances.clone(),
                    config: config.clone(),
                    daemon: daemon.clone(),
                },
            },
        }
    }
}
