//! TODO head

#[derive(Clone)]
pub struct DefineSteps {
    pub definitions: Definitions,
    pub uploads: Uploads,
    pub copies: Copies,
    pub recurrences: Recurrences,
}

#[derive(Clone)]
pub struct ConfirmSteps {
    pub confirmations: Confirmations,
    pub from_queue: QueueConfirmations,
}

#[derive(Clone)]
pub struct ReleaseSteps {
    pub due_waves: DueWaves,
    pub starts: Starts,
    pub fair_queue: FairQueue,
}

#[derive(Clone)]
pub struct RecoverSteps {
    pub reconciler: Reconciler,
    pub pulse: RedisPulse,
    pub sweep: IndexSweep,
    pub finishes: Finishes,
    pub takeovers: Takeovers,
}

#[derive(Clone)]
pub struct OperateSteps {
    pub controls: Controls,
    pub in_doubt: InDoubtRecipients,
    pub retention: Retention,
    pub proofs: Proofs,
}

#[derive(Clone)]
pub struct Journey {
    pub define: DefineSteps,
    pub preparations: Preparations,
    pub confirm: ConfirmSteps,
    pub release: ReleaseSteps,
    pub chunks: ChunkSender,
    pub throttle_watch: ThrottleWatch,
    pub recover: RecoverSteps,
    pub operate: OperateSteps,
}

#[derive(Clone)]
pub struct Reports {
    pub sending_log: SendingLog,
    pub exclusion_log: ExclusionLog,
    pub tracking_logs: TrackingLogs,
    pub history: History,
    pub previews: Previews,
    pub archives: Archives,
}

#[derive(Clone)]
pub struct Feedback {
    pub links: LinkTargets,
    pub hits: HitRecording,
    pub denylist: Denylist,
    pub statistics: StatisticsUpdates,
}

#[derive(Clone)]
pub struct Observation {
    pub gauges: Gauges,
    pub ratios: RatioGauges,
}

#[derive(Clone)]
pub struct Stores {
    pub redis: Redis,
    pub deliveries: DeliveryStore,
    pub audiences: AudienceStore,
    pub schedules: ScheduleStore,
    pub ledgers: LedgerStore,
    pub chunks: ChunkLists,
    pub addresses: AddressStore,
    pub tracking: TrackingStore,
    pub limits: LimitStore,
}

#[derive(Clone)]
pub struct Operations {
    pub queue: Queue,
    pub health: WorkerHealth,
    pub keyring: Arc<Keyring>,
    pub ratios: DeliveryRatios,
    pub redis_state: RedisState,
    pub metrics: PrometheusHandle,
    pub failures: LoginFailures,
}

#[derive(Clone)]
pub struct Api {
    pub stores: Stores,
    pub deliveries: Deliveries,
    pub journey: Journey,
    pub reports: Reports,
    pub feedback: Feedback,
    pub operations: Operations,
    pub daemon: Daemon,
    pub config: Arc<Config>,
}

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
