//! TODO head

#![allow(clippy::disallowed_macros)]

pub mod catalogue;
pub mod operations;
pub mod requests;
pub mod tracking;

pub use catalogue::{
    ALL, Kind, Metric, TransactionMetrics, acceptances, aside, breaker_tripped, breakers,
    conservation, deliveries, duplicate, excluded, fenced, in_doubt_bound, install, login_failure,
    occurrence, queue_beat, queue_jobs, queue_restarts, recipients, recorded, redis,
    redis_durability, redis_restarted, relay, revived, schedule, set_aside, store_retry,
    taken_over, waves, went_back,
};
pub use operations::{
    delivery_ended, failure, preparation, queue_age, queue_worker, redis_round_trip,
    retention_removed, start_pending, task_succeeded, waves_due,
};
pub use requests::{RequestMetrics, http_request};
pub use tracking::{DeliveryRatios, tracking_hit};
