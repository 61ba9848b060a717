//! The wiring of the room `send::recover`.

use super::shared::{Parts, SharedHandles};
use crate::send::{
    RecoverSteps, ReleaseSteps,
    recover::{
        ChunkRepair, Finishes, HaltRepair, IndexSweep, PoisonedChunks, Reconciler, RedisPulse,
        RedisState, SendingRepair, StoreHeartbeat, Takeovers,
    },
};

impl SharedHandles {
    pub(super) fn recover(&self, poisoned: PoisonedChunks, release: &ReleaseSteps) -> RecoverSteps {
        let Parts { stores, daemon, config, .. } = &self.parts;
        let takeovers = Takeovers {
            poisoned,
            holder: self.holder.clone(),
            ledgers: stores.ledgers.clone(),
            schedules: stores.schedules.clone(),
            liveness: self.liveness.clone(),
            config: config.clone(),
            daemon: daemon.clone(),
        };
        RecoverSteps {
            reconciler: self.reconciler(&takeovers, release),
            heartbeat: StoreHeartbeat {
                holds: stores.holds.clone(),
                config: self.parts.live.clone(),
            },
            pulse: RedisPulse {
                redis: stores.redis.clone(),
                holder: self.holder.clone(),
                liveness: self.liveness.clone(),
                state: RedisState::default(),
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
                schedules: stores.schedules.clone(),
                chunks: stores.chunks.clone(),
            },
        }
    }

    fn reconciler(&self, takeovers: &Takeovers, release: &ReleaseSteps) -> Reconciler {
        let Parts { stores, queue, config, .. } = &self.parts;
        let chunk_repair = ChunkRepair {
            takeovers: takeovers.clone(),
            ledgers: stores.ledgers.clone(),
            chunks: stores.chunks.clone(),
            queue: queue.clone(),
            liveness: self.liveness.clone(),
        };
        Reconciler {
            deliveries: self.deliveries.clone(),
            audiences: stores.audiences.clone(),
            sending: SendingRepair {
                due_waves: release.due_waves.clone(),
                fair_queue: self.fair_queue.clone(),
                chunk_repair: chunk_repair.clone(),
                takeovers: takeovers.clone(),
                poisoned: takeovers.poisoned.clone(),
                schedules: stores.schedules.clone(),
                ledgers: stores.ledgers.clone(),
                queue: queue.clone(),
            },
            halts: HaltRepair {
                deliveries: self.deliveries.clone(),
                starts: release.starts.clone(),
                ledgers: stores.ledgers.clone(),
                chunk_repair,
            },
            jobs: self.jobs.clone(),
            liveness: self.liveness.clone(),
            config: config.clone(),
        }
    }
}
