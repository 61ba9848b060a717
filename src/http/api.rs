//! The services that the routes of the admin API call.

use super::{
    login_failures::LoginFailures, metrics_page::MetricsPage, principal_limits::PrincipalLimits,
};
use crate::{
    audit::OperationLog,
    config::{Config, ServerSettings},
    daemon::Daemon,
    deliveries::Deliveries,
    feedback::Feedback,
    identity::Keyring,
    live::Live,
    queue::{Queue, WorkerHealth},
    report::Reports,
    send::{Journey, recover::RedisState},
    store::{Stores, TokenStore},
};

/// The services of the routes. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    /// Reads that need no decision.
    pub stores: Stores,
    /// Reads and changes single deliveries.
    pub deliveries: Deliveries,
    /// The steps of a delivery's journey.
    pub journey: Journey,
    /// Logs, history, previews and archives.
    pub reports: Reports,
    /// Hits, opt-outs and statistics.
    pub feedback: Feedback,
    /// The services for operators.
    pub operations: Operations,
    /// This process and its shutdown.
    pub daemon: Daemon,
    /// The settings.
    pub config: Live<Config>,
}

/// The services for operators: log-in, health, queues and metrics.
#[derive(Clone)]
pub struct Operations {
    /// The queues with their dead jobs.
    pub queue: Queue,
    /// Records who read personal data, and who changed something that is no delivery.
    pub log: OperationLog,
    /// Which queue workers of this process live.
    pub health: WorkerHealth,
    /// The tokens and keys of those who may log in.
    pub keyring: Live<Keyring>,
    /// Which bearer tokens are revoked, and when each was used.
    pub tokens: TokenStore,
    /// The last known state of Redis: whether it takes writes.
    pub redis_state: RedisState,
    /// Renders the metrics.
    pub metrics: MetricsPage,
    /// The limits of requests.
    pub limits: RequestLimits,
}

/// The limits that the admin API keeps for clients and principals. The clones share them.
#[derive(Clone)]
pub struct RequestLimits {
    /// The recent log-in failures of each client network.
    pub(super) failures: LoginFailures,
    /// The requests and event streams that principals hold.
    pub(super) principals: PrincipalLimits,
}

impl RequestLimits {
    /// The limits of the settings.
    pub fn new(server: &ServerSettings) -> Self {
        Self { failures: LoginFailures::default(), principals: PrincipalLimits::new(server) }
    }
}
