//! The wiring of the room `send::chunk`.

use super::shared::{Parts, SharedHandles};
use crate::send::{
    chunk::{ChunkSender, LateExclusions, LeasedChunkSender, LedgerAccess},
    recover::PoisonedChunks,
};

impl SharedHandles {
    pub(super) fn chunks(&self, poisoned: &PoisonedChunks) -> ChunkSender {
        let Parts { stores, queue, daemon, config, .. } = &self.parts;
        ChunkSender {
            deliveries: self.deliveries.clone(),
            schedules: stores.schedules.clone(),
            holder: self.holder.clone(),
            poisoned: poisoned.clone(),
            sender: LeasedChunkSender {
                audiences: stores.audiences.clone(),
                out: self.out.clone(),
                late_exclusions: LateExclusions {
                    checks: self.checks.clone(),
                    daemon: daemon.clone(),
                },
                access: LedgerAccess {
                    deliveries: self.deliveries.clone(),
                    ledgers: stores.ledgers.clone(),
                    redis: stores.redis.clone(),
                    holder: self.holder.clone(),
                    acceptances: self.acceptances.clone(),
                    config: config.clone(),
                    daemon: daemon.clone(),
                },
                daemon: daemon.clone(),
            },
            fair_queue: self.fair_queue.clone(),
            queue: queue.clone(),
            config: config.clone(),
        }
    }
}
