//! The parts of a daemon, and the handles and services that several rooms share.

use std::sync::{Arc, atomic::AtomicU64};

use crate::{
    audit::AuditHeads,
    config::Config,
    daemon::Daemon,
    deliveries::Deliveries,
    domain::tracking::MachineRules,
    identity::Keyring,
    live::Live,
    mail::{MessageMaker, smtp::Relays},
    queue::{Queue, WorkerHealth},
    report::RecipientMessages,
    send::{
        StepJobs,
        chunk::{GivenBackChunks, LeaseHolder},
        limits::{AddressChecks, ConnectionPermits, MailOut, Throttles},
        operate::Removal,
        recover::{Liveness, Recounts},
        release::FairQueue,
    },
    store::Stores,
};

/// The handles and settings that all services are made of.
pub struct Parts {
    pub stores: Stores,
    pub queue: Queue,
    pub relays: Relays,
    pub messages: MessageMaker,
    pub rules: Live<MachineRules>,
    pub keyring: Live<Keyring>,
    pub health: WorkerHealth,
    pub heads: AuditHeads,
    pub daemon: Daemon,
    /// The settings of the start.
    pub config: Arc<Config>,
    /// At first the settings of the start. A reload replaces some of them.
    pub live: Live<Config>,
}

/// The parts, and everything that more than one room needs; each is made once.
pub(in crate::app) struct SharedHandles {
    pub(in crate::app) parts: Parts,
    pub(in crate::app) deliveries: Deliveries,
    pub(super) recipients: RecipientMessages,
    pub(super) out: MailOut,
    pub(super) jobs: StepJobs,
    pub(super) removal: Removal,
    pub(super) checks: AddressChecks,
    pub(super) holder: LeaseHolder,
    pub(super) liveness: Liveness,
    /// Acceptances by the relays since the start of this process, proofs included.
    pub(super) acceptances: Arc<AtomicU64>,
    pub(super) recounts: Recounts,
    pub(super) fair_queue: FairQueue,
}

impl SharedHandles {
    /// Makes what the rooms share.
    pub(in crate::app) fn new(parts: Parts) -> Self {
        let Parts { stores, queue, relays, messages, heads, daemon, config, .. } = &parts;
        let deliveries = Deliveries {
            store: stores.deliveries.clone(),
            redis: stores.redis.clone(),
            holds: stores.holds.clone(),
            heads: heads.clone(),
        };
        let throttles = Throttles::new(config, stores.limits.clone());
        let removal = Removal {
            deliveries: deliveries.clone(),
            audiences: stores.audiences.clone(),
            addresses: stores.addresses.clone(),
            ledgers: stores.ledgers.clone(),
            tracking: stores.tracking.clone(),
            config: parts.live.clone(),
        };
        Self {
            recipients: RecipientMessages {
                audiences: stores.audiences.clone(),
                schedules: stores.schedules.clone(),
                messages: messages.clone(),
            },
            out: MailOut {
                relays: relays.clone(),
                permits: ConnectionPermits::default(),
                throttles: throttles.clone(),
                messages: messages.clone(),
            },
            jobs: StepJobs { deliveries: deliveries.clone(), queue: queue.clone() },
            removal,
            checks: AddressChecks {
                addresses: stores.addresses.clone(),
                ledgers: stores.ledgers.clone(),
            },
            holder: LeaseHolder {
                ledgers: stores.ledgers.clone(),
                chunks: stores.chunks.clone(),
                redis: stores.redis.clone(),
                holds: stores.holds.clone(),
                given_back: GivenBackChunks::default(),
                daemon: daemon.clone(),
            },
            liveness: Liveness::new(config.send.lease()),
            acceptances: Arc::default(),
            recounts: Recounts {
                ledgers: stores.ledgers.clone(),
                schedules: stores.schedules.clone(),
                audiences: stores.audiences.clone(),
                config: config.clone(),
            },
            fair_queue: FairQueue {
                chunks: stores.chunks.clone(),
                queue: queue.clone(),
                throttles,
                config: config.clone(),
            },
            deliveries,
            parts,
        }
    }
}
