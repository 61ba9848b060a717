//! The HTTP room owns the listeners: the admin API, the public listener, health and metrics.
//!
//! - [`router()`] makes the admin API from one table of routes, [`ROUTES`]. Each row names the role
//!   that the route needs, its handler and its help text.
//! - [`Api`] and [`Operations`] hold the services that the handlers call.
//! - [`PublicListener`] answers recipients: open pixels, links, mirror pages and opt-outs
//!   ([`PUBLIC_ROUTES`]).
//! - [`serve_health`] answers health checks and Prometheus apart from the admin API.
//! - [`serve`] runs a listener with its limits: connections, sizes and time-outs (`listen`).
//!
//! Handlers are thin: they read the request, call one service, and turn a refusal into a problem
//! document (`problem`, RFC 9457). `request` holds the extractors. `csv_cells` writes exports.
//! `answer_headers` adds the headers of every answer. `login_failures` counts wrong tokens.
//! `principal_limits` counts how much each principal holds.
//!
//! Not here: decisions about deliveries (`send`), what a hit means (`feedback` and
//! `domain::tracking`), what a log holds (`report`), and who may log in (`identity`). Handlers,
//! jobs (`worker`) and tasks (`scheduler`) call the same services, but never each other.

mod action_routes;
mod answer_headers;
mod api;
mod audit_routes;
mod csv_cells;
mod delivery_routes;
mod denylist_routes;
mod event_routes;
mod health_listener;
mod held_body;
mod listen;
mod log_routes;
mod login_failures;
mod metrics_page;
mod operation_routes;
mod principal_limits;
mod problem;
mod profile_routes;
mod progress;
pub mod public;
mod recorded;
mod recurrence_routes;
mod request;
mod router;
mod routes;
mod statistics_routes;
mod store_routes;
mod token_routes;
mod unit_scope;

pub use api::{Api, Operations, RequestLimits};
pub use health_listener::serve_health;
pub use listen::{ListenerOptions, ListenerTls, serve};
pub use metrics_page::MetricsPage;
pub use public::{PUBLIC_ROUTES, PublicListener};
pub use router::router;
pub use routes::{ROUTES, Route};
