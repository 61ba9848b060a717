//! The wiring of the steps before sending: define, prepare, confirm and release.

use super::shared::{Parts, SharedHandles};
use crate::send::{
    ConfirmSteps, DefineSteps, ReleaseSteps,
    confirm::{Approvals, Confirmations, QueueConfirmations},
    define::{Copies, Definitions, Recurrences, Uploads},
    prepare::{PassTools, Preparations},
    release::{DueWaves, Starts},
};

impl SharedHandles {
    pub(super) fn define(&self) -> DefineSteps {
        let Parts { stores, live, .. } = &self.parts;
        let definitions = Definitions {
            deliveries: self.deliveries.clone(),
            removal: self.removal.clone(),
            config: live.clone(),
            threads: self.parts.messages.templates.threads.clone(),
        };
        let uploads = Uploads {
            deliveries: self.deliveries.clone(),
            audiences: stores.audiences.clone(),
            removal: self.removal.clone(),
            config: live.clone(),
        };
        DefineSteps {
            copies: Copies {
                deliveries: self.deliveries.clone(),
                definitions: definitions.clone(),
                uploads: uploads.clone(),
                audiences: stores.audiences.clone(),
            },
            recurrences: Recurrences {
                deliveries: self.deliveries.clone(),
                audiences: stores.audiences.clone(),
                jobs: self.jobs.clone(),
                config: live.clone(),
            },
            definitions,
            uploads,
        }
    }

    pub(super) fn preparations(&self) -> Preparations {
        let Parts { stores, relays, messages, daemon, live, .. } = &self.parts;
        Preparations {
            deliveries: self.deliveries.clone(),
            audiences: stores.audiences.clone(),
            removal: self.removal.clone(),
            jobs: self.jobs.clone(),
            tools: PassTools {
                deliveries: self.deliveries.clone(),
                audiences: stores.audiences.clone(),
                schedules: stores.schedules.clone(),
                checks: self.checks.clone(),
                messages: messages.clone(),
                relays: relays.clone(),
                config: live.clone(),
                daemon: daemon.clone(),
            },
        }
    }

    pub(super) fn confirm(&self) -> ConfirmSteps {
        let confirmations =
            Confirmations { deliveries: self.deliveries.clone(), jobs: self.jobs.clone() };
        ConfirmSteps {
            approvals: Approvals { deliveries: self.deliveries.clone() },
            from_queue: QueueConfirmations {
                deliveries: self.deliveries.clone(),
                confirmations: confirmations.clone(),
                queue: self.parts.queue.clone(),
                keyring: self.parts.keyring.clone(),
            },
            confirmations,
        }
    }

    pub(super) fn release(&self) -> ReleaseSteps {
        let stores = &self.parts.stores;
        let due_waves = DueWaves {
            deliveries: self.deliveries.clone(),
            schedules: stores.schedules.clone(),
            jobs: self.jobs.clone(),
            fair_queue: self.fair_queue.clone(),
        };
        ReleaseSteps {
            starts: Starts {
                deliveries: self.deliveries.clone(),
                schedules: stores.schedules.clone(),
                ledgers: stores.ledgers.clone(),
                chunks: stores.chunks.clone(),
                due_waves: due_waves.clone(),
                fair_queue: self.fair_queue.clone(),
            },
            fair_queue: self.fair_queue.clone(),
            due_waves,
        }
    }
}
