//! The wiring of the room `send::operate`.

use super::shared::{Parts, SharedHandles};
use crate::{
    feedback::Feedback,
    report::Reports,
    send::{
        OperateSteps,
        operate::{Controls, HeldStore, InDoubtRecipients, Proofs, Retention},
    },
};

impl SharedHandles {
    pub(super) fn operate(&self, reports: &Reports, feedback: &Feedback) -> OperateSteps {
        let Parts { stores, daemon, live, .. } = &self.parts;
        OperateSteps {
            controls: Controls {
                deliveries: self.deliveries.clone(),
                limits: stores.limits.clone(),
                chunks: stores.chunks.clone(),
                fair_queue: self.fair_queue.clone(),
            },
            held_store: HeldStore {
                deliveries: self.deliveries.clone(),
                schedules: stores.schedules.clone(),
                ledgers: stores.ledgers.clone(),
            },
            in_doubt: InDoubtRecipients {
                deliveries: self.deliveries.clone(),
                ledgers: stores.ledgers.clone(),
                fair_queue: self.fair_queue.clone(),
            },
            retention: Retention {
                deliveries: self.deliveries.clone(),
                ledgers: stores.ledgers.clone(),
                tracking: stores.tracking.clone(),
                removal: self.removal.clone(),
                statistics: feedback.statistics.clone(),
                recounts: self.recounts.clone(),
                archives: reports.archives.clone(),
                config: live.clone(),
                daemon: daemon.clone(),
            },
            proofs: Proofs {
                deliveries: self.deliveries.clone(),
                recipients: self.recipients.clone(),
                addresses: stores.addresses.clone(),
                limits: stores.limits.clone(),
                out: self.out.clone(),
                acceptances: self.acceptances.clone(),
                config: live.clone(),
                daemon: daemon.clone(),
            },
        }
    }
}
