//! Metrics: everything that `/metrics` shows, and one function for each event or figure.
//!
//! - [`ALL`] is the table of metrics with names, kinds and help texts. No other room names a
//!   metric; clippy forbids the macros elsewhere.
//! - [`install()`] installs the recorder once for each process.
//! - The functions count an event or show a figure, such as [`duplicate`] or [`queue_age`]. Labels
//!   have few values, all known in advance. They are never addresses, ids or free text.
//! - [`TransactionMetrics`] and [`RequestMetrics`] look their series up once, for hot paths.
//! - [`DeliveryRatios`] holds the ratios of the newest deliveries. They are labelled by delivery,
//!   so they are written apart from the recorder, which never forgets a series.
//!
//! Not here: which figures are read, and how often (`observe`), the HTTP route (`http`), and the
//! alerts and dashboards (`config/prometheus`, `config/grafana`).
#![allow(clippy::disallowed_macros)] // The macros belong here, and only here.

mod catalogue;
mod delivery_metrics;
mod install;
mod operation_metrics;
mod relay_metrics;
mod request_metrics;
mod tracking_metrics;

pub use catalogue::{ALL, Kind, Metric};
pub use delivery_metrics::{
    breaker_tripped, breakers, conservation, deliveries, delivery_ended, duplicate, excluded,
    failure, fenced, occurrence, poisoned_chunks, preparation, recipients, recorded,
    retention_removed, revived, schedule, set_aside, start_pending, store_retry, taken_over, waves,
    waves_due, went_back,
};
pub use install::install;
pub use operation_metrics::{
    login_failure, queue_age, queue_beat, queue_jobs, queue_restarts, queue_worker, redis,
    redis_durability, redis_restarted, redis_round_trip, reloaded, store_held, task_succeeded,
};
pub use relay_metrics::{RelayFigures, TransactionMetrics, acceptances, in_doubt_bound, relay};
pub use request_metrics::{RequestMetrics, certificate, http_request, turned_away};
pub use tracking_metrics::{DeliveryRatios, tracking_hit};
