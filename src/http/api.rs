//! The services that the routes of the admin API call.

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;

use super::login_failures::LoginFailures;
use crate::{
    config::Config,
    daemon::Daemon,
    deliveries::Deliveries,
    feedback::Feedback,
    identity::Keyring,
    metrics::DeliveryRatios,
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
    pub config: Arc<Config>,
}

/// The services for operators: log-in, health, queues and metrics.
#[derive(Clone)]
pub struct Operations {
    /// The queues with their dead jobs.
    pub queue: Queue,
    /// Which queue workers of this process live.
    pub health: WorkerHealth,
    /// The tokens and keys of those who may log in.
    pub keyring: Arc<Keyring>,
    /// Which bearer tokens are revoked, and when each was used.
    pub tokens: TokenStore,
    /// The ratios of the newest deliveries, for `/metrics`.
    pub ratios: DeliveryRatios,
    /// The last known state of Redis: true while Redis takes writes.
    pub redis_state: RedisState,
    /// Renders the metrics.
    pub metrics: PrometheusHandle,
    /// The recent log-in failures of each peer.
    pub failures: LoginFailures,
}
