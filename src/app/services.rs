//! Which service gets which handles.

use std::sync::{Arc, atomic::AtomicU64};

use crate::{
    config::Config,
    daemon::Daemon,
    deliveries::Deliveries,
    domain::tracking::MachineRules,
    feedback::{
        Denylist, Feedback, HitArrivals, HitRecorder, HitRecording, KnownDeliveries, LinkTargets,
        StatisticsUpdates,
    },
    identity::Keyring,
    mail::{MessageMaker, smtp::Relays},
    observe::{
        ConservationCheck, DeliveryGauges, Gauges, Observation, QueueGauges, RatioGauges,
        WaveGauges,
    },
    queue::{Queue, WorkerHealth},
    report::{
        Archives, ExclusionLog, History, Previews, RecipientMessages, Reports, SendingLog,
        TrackingLogs,
    },
    send::{
        ConfirmSteps, DefineSteps, Journey, OperateSteps, RecoverSteps, ReleaseSteps, StepJobs,
        chunk::{
            ChunkSender, GivenBackChunks, LateExclusions, LeaseHolder, LeasedChunkSender,
            LedgerAccess,
        },
        confirm::{Confirmations, QueueConfirmations},
        define::{Copies, Definitions, Recurrences, Uploads},
        limits::{AddressChecks, ConnectionPermits, MailOut, ThrottleWatch, Throttles},
        operate::{Controls, InDoubtRecipients, Proofs, Removal, Retention},
        prepare::{PassTools, Preparations},
        recover::{
            ChunkRepair, Finishes, HaltRepair, IndexSweep, Liveness, PoisonedChunks, Reconciler,
            Recounts, RedisPulse, RedisState, SendingRepair, Takeovers,
        },
        release::{DueWaves, FairQueue, Starts},
    },
    store::Stores,
};

/// What the services are made of.
pub struct Parts {
    pub stores: Stores,
    pub queue: Queue,
    pub relays: Relays,
    pub messages: MessageMaker,
    pub rules: Arc<MachineRules>,
    pub keyring: Arc<Keyring>,
    pub health: WorkerHealth,
    pub daemon: Daemon,
    pub config: Arc<Config>,
}

/// All services of a daemon. No service holds it: only what starts them, and tests.
#[derive(Clone)]
pub struct Services {
    pub stores: Stores,
    pub deliveries: Deliveries,
    pub journey: Journey,
    pub reports: Reports,
    pub feedback: Feedback,
    pub observation: Observation,
    pub daemon: Daemon,
    pub config: Arc<Config>,
}

/// What several services share, made once.
struct Shared {
    parts: Parts,
    deliveries: Deliveries,
    recipients: RecipientMessages,
    out: MailOut,
    jobs: StepJobs,
    removal: Removal,
    checks: AddressChecks,
    holder: LeaseHolder,
    liveness: Liveness,
    acceptances: Arc<AtomicU64>,
    recounts: Recounts,
    fair_queue: FairQueue,
}

impl Services {
    pub fn new(parts: Parts) -> (Self, HitArrivals) {
        let shared = Shared::new(parts);
        let reports = shared.reports();
        let (feedback, arrivals) = shared.feedback();
        let journey = shared.journey(&reports, &feedback);
        let observation = shared.observation();
        let Shared { parts: Parts { stores, daemon, config, .. }, deliveries, .. } = shared;
        (
            Self { stores, deliveries, journey, reports, feedback, observation, daemon, config },
            arrivals,
        )
    }
}

impl Shared {
    fn new(parts: Parts) -> Self {
        let Parts { stores, queue, relays, messages, daemon, config, .. } = &parts;
        let deliveries = Deliveries {
            store: stores.deliveries.clone(),
            redis: stores.redis.clone(),
            heads_damaged: Arc::default(),
        };
        let throttles = Throttles::new(config, stores.limits.clone());
        let removal = Removal {
            deliveries: deliveries.clone(),
            audiences: stores.audiences.clone(),
            addresses: stores.addresses.clone(),
            ledgers: stores.ledgers.clone(),
            tracking: stores.tracking.clone(),
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

    fn reports(&self) -> Reports {
        let (stores, deliveries) = (&self.parts.stores, &self.deliveries);
        let sending_log = SendingLog {
            deliveries: deliveries.clone(),
            audiences: stores.audiences.clone(),
            ledgers: stores.ledgers.clone(),
        };
        let exclusion_log =
            ExclusionLog { deliveries: deliveries.clone(), audiences: stores.audiences.clone() };
        let tracking_logs = TrackingLogs {
            deliveries: deliveries.clone(),
            audiences: stores.audiences.clone(),
            tracking: stores.tracking.clone(),
        };
        Reports {
            history: History { addresses: stores.addresses.clone() },
            previews: Previews {
                deliveries: deliveries.clone(),
                recipients: self.recipients.clone(),
                ledgers: stores.ledgers.clone(),
            },
            archives: Archives {
                deliveries: deliveries.clone(),
                sending_log: sending_log.clone(),
                exclusion_log: exclusion_log.clone(),
                tracking_logs: tracking_logs.clone(),
            },
            sending_log,
            exclusion_log,
            tracking_logs,
        }
    }

    fn feedback(&self) -> (Feedback, HitArrivals) {
        let Parts { stores, rules, daemon, config, .. } = &self.parts;
        let (recorder, arrivals) = HitRecorder::new();
        let links = LinkTargets {
            deliveries: self.deliveries.clone(),
            addresses: stores.addresses.clone(),
            recipients: self.recipients.clone(),
            known: KnownDeliveries::default(),
            config: config.clone(),
        };
        let feedback = Feedback {
            denylist: Denylist {
                addresses: stores.addresses.clone(),
                redis: stores.redis.clone(),
                links: links.clone(),
            },
            links,
            hits: HitRecording {
                recorder,
                rules: rules.clone(),
                tracking: stores.tracking.clone(),
                redis: stores.redis.clone(),
                daemon: daemon.clone(),
            },
            statistics: StatisticsUpdates {
                deliveries: self.deliveries.clone(),
                tracking: stores.tracking.clone(),
                ledgers: stores.ledgers.clone(),
                audiences: stores.audiences.clone(),
                rules: rules.clone(),
                one_at_a_time: Arc::default(),
                daemon: daemon.clone(),
            },
        };
        (feedback, arrivals)
    }

    fn journey(&self, reports: &Reports, feedback: &Feedback) -> Journey {
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

    fn define(&self) -> DefineSteps {
        let Parts { stores, config, .. } = &self.parts;
        let definitions =
            Definitions { deliveries: self.deliveries.clone(), removal: self.removal.clone() };
        let uploads = Uploads {
            deliveries: self.deliveries.clone(),
            audiences: stores.audiences.clone(),
            removal: self.removal.clone(),
            config: config.clone(),
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
                config: config.clone(),
            },
            definitions,
            uploads,
        }
    }

    fn preparations(&self) -> Preparations {
        let Parts { stores, relays, messages, daemon, config, .. } = &self.parts;
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
                config: config.clone(),
                daemon: daemon.clone(),
            },
        }
    }

    fn confirm(&self) -> ConfirmSteps {
        let confirmations =
            Confirmations { deliveries: self.deliveries.clone(), jobs: self.jobs.clone() };
        ConfirmSteps {
            from_queue: QueueConfirmations {
                confirmations: confirmations.clone(),
                queue: self.parts.queue.clone(),
                keyring: self.parts.keyring.clone(),
            },
            confirmations,
        }
    }

    fn release(&self) -> ReleaseSteps {
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
                due_waves: due_waves.clone(),
            },
            fair_queue: self.fair_queue.clone(),
            due_waves,
        }
    }

    fn chunks(&self, poisoned: &PoisonedChunks) -> ChunkSender {
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

    fn recover(&self, poisoned: PoisonedChunks, release: &ReleaseSteps) -> RecoverSteps {
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
        let state = RedisState::default();
        RecoverSteps {
            reconciler: self.reconciler(&takeovers, release, &state),
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
                schedules: stores.schedules.clone(),
                chunks: stores.chunks.clone(),
            },
        }
    }

    fn reconciler(
        &self,
        takeovers: &Takeovers,
        release: &ReleaseSteps,
        state: &RedisState,
    ) -> Reconciler {
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
            redis_state: state.clone(),
        }
    }

    fn operate(&self, reports: &Reports, feedback: &Feedback) -> OperateSteps {
        let Parts { stores, daemon, config, .. } = &self.parts;
        OperateSteps {
            controls: Controls {
                deliveries: self.deliveries.clone(),
                limits: stores.limits.clone(),
                fair_queue: self.fair_queue.clone(),
            },
            in_doubt: InDoubtRecipients {
                deliveries: self.deliveries.clone(),
                ledgers: stores.ledgers.clone(),
                fair_queue: self.fair_queue.clone(),
            },
            retention: Retention {
                deliveries: self.deliveries.clone(),
                removal: self.removal.clone(),
                statistics: feedback.statistics.clone(),
                recounts: self.recounts.clone(),
                archives: reports.archives.clone(),
                config: config.clone(),
                daemon: daemon.clone(),
            },
            proofs: Proofs {
                deliveries: self.deliveries.clone(),
                recipients: self.recipients.clone(),
                out: self.out.clone(),
                acceptances: self.acceptances.clone(),
                config: config.clone(),
                daemon: daemon.clone(),
            },
        }
    }

    fn observation(&self) -> Observation {
        let Parts { stores, queue, relays, health, config, .. } = &self.parts;
        let waves =
            WaveGauges { deliveries: self.deliveries.clone(), schedules: stores.schedules.clone() };
        Observation {
            gauges: Gauges {
                relays: relays.clone(),
                acceptances: self.acceptances.clone(),
                queues: QueueGauges {
                    queue: queue.clone(),
                    health: health.clone(),
                    liveness: self.liveness.clone(),
                },
                deliveries: DeliveryGauges {
                    deliveries: self.deliveries.clone(),
                    ledgers: stores.ledgers.clone(),
                    chunks: stores.chunks.clone(),
                    waves: waves.clone(),
                },
                waves,
                conservation: ConservationCheck {
                    deliveries: self.deliveries.clone(),
                    recounts: self.recounts.clone(),
                    differences: Default::default(),
                },
                config: config.clone(),
            },
            ratios: RatioGauges {
                deliveries: self.deliveries.clone(),
                tracking: stores.tracking.clone(),
                ratios: Default::default(),
            },
        }
    }
}
