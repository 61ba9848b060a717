//! The wiring of the room `send`: puts its steps together.

use super::shared::{Parts, SharedHandles};
use crate::{
    feedback::Feedback,
    report::Reports,
    send::{Journey, limits::ThrottleWatch, recover::PoisonedChunks},
};

impl SharedHandles {
    /// Every step of the journey.
    pub(in crate::app) fn journey(&self, reports: &Reports, feedback: &Feedback) -> Journey {
        let Parts { stores, relays, daemon, config, .. } = &self.parts;
        let poisoned = PoisonedChunks {
            chunks: stores.chunks.clone(),
            ledgers: stores.ledgers.clone(),
            holder: self.holder.clone(),
            config: config.clone(),
        };
        let release = self.release();
        let chunks = self.chunks(&poisoned);
        let recover = self.recover(poisoned, &release);
        Journey {
            define: self.define(),
            preparations: self.preparations(),
            confirm: self.confirm(),
            chunks,
            throttle_watch: ThrottleWatch {
                throttles: self.out.throttles.clone(),
                store: stores.limits.clone(),
                relays: relays.clone(),
                permits: self.out.permits.clone(),
                config: config.clone(),
                daemon: daemon.clone(),
            },
            operate: self.operate(reports, feedback),
            release,
            recover,
        }
    }
}
