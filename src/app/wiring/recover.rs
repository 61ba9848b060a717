//! The wiring of the room `send::recover`.

use super::shared::{Parts, SharedHandles};
use crate::send::{
    RecoverSteps, ReleaseSteps,
    recover::{
        ChunkRepair, Finishes, IndexSweep, PoisonedChunks, Reconciler, RedisPulse, RedisState,
        SendingRepair, Takeovers,
    },
};

impl SharedHandles {
    pub(super) fn recover(&self, poisoned: PoisonedChunks, release: &ReleaseSteps) -> RecoverSteps {
        let Parts { stores, queue, daemon, config, .. } = &self.parts;
        let takeovers = Takeovers {
            poisoned: poisoned.clone(),
            schedules: stores.schedules.clone(),
            liveness: self.liveness.clone(),
            daemon: daemon.clone(),
        };
        let state = RedisState::default();
        RecoverSteps {
            reconciler: Reconciler {
                deliveries: self.deliveries.clone(),
                audiences: stores.audiences.clone(),
                sending: SendingRepair {
                    deliveries: self.deliveries.clone(),
                    due_waves: release.due_waves.clone(),
                    starts: release.starts.clone(),
                    repair: ChunkRepair {
                        takeovers: takeovers.clone(),
                        ledgers: stores.ledgers.clone(),
                        chunks: stores.chunks.clone(),
                        queue: queue.clone(),
                        liveness: self.liveness.clone(),
                    },
                    poisoned,
                },
                jobs: self.jobs.clone(),
                liveness: self.liveness.clone(),
                config: config.clone(),
                redis_state: state.clone(),
            },
            pulse: RedisPulse {
                redis: stores.redis.clone(),
                holder: self.holder.clone(),
                liveness: self.liveness.clone(),
                state,
                config: config.clone(),
                daemon: daemon.clone(),
            },
            sweep: IndexSweep {
                deliveries: self.deliveries.clone(),
                schedules: stores.schedules.clone(),
                chunks: stores.chunks.clone(),
                removal: self.removal.clone(),
            },
            finishes: Finishes {
                deliveries: self.deliveries.clone(),
                recounts: self.recounts.clone(),
                chunks: stores.chunks.clone(),
            },
            takeovers,
        }
    }
}
