//! All services of a daemon in one place, for the code that starts them and for tests.

use std::sync::Arc;

use super::wiring::{Parts, SharedHandles};
use crate::{
    config::Config,
    daemon::Daemon,
    deliveries::Deliveries,
    feedback::{Feedback, HitReceiver},
    observe::Observation,
    report::Reports,
    send::Journey,
    store::Stores,
};

/// All services of a daemon. Only the code that starts them and the tests hold this struct.
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

impl Services {
    /// Makes every service. The receiver takes the hits that wait to be recorded.
    pub fn new(parts: Parts) -> (Self, HitReceiver) {
        let shared = SharedHandles::new(parts);
        let reports = shared.reports();
        let (feedback, hits) = shared.feedback();
        let journey = shared.journey(&reports, &feedback);
        let observation = shared.observation();
        let SharedHandles { parts: Parts { stores, daemon, config, .. }, deliveries, .. } = shared;
        (Self { stores, deliveries, journey, reports, feedback, observation, daemon, config }, hits)
    }
}
