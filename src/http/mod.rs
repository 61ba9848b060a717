//! The HTTP room owns the two listeners: the admin API and the public listener.
//!
//! - [`router()`] makes the admin API from one table of routes, [`ROUTES`]. Each row names the role
//!   that the route needs, its handler and its help text.
//! - [`Api`] and [`Operations`] hold the services that the handlers call.
//! - [`PublicListener`] answers recipients: open pixels, links, mirror pages and opt-outs
//!   ([`PUBLIC_ROUTES`]).
//! - [`serve`] runs a listener with its limits: connections, sizes and time-outs.
//!
//! Handlers are thin: they read the request, call one service, and turn a refusal into a problem
//! document (`problem`, RFC 9457). `request` holds the extractors, `login_failures` slows down
//! guessers.
//!
//! Not here: decisions about deliveries (`send`), what a hit means (`feedback` and
//! `domain::tracking`), what a log holds (`report`), and who may log in (`identity`). Handlers,
//! jobs (`worker`) and tasks (`scheduler`) call the same services, but never each other.

mod action_routes;
mod api;
mod delivery_routes;
mod denylist_routes;
mod event_routes;
mod listen;
mod log_routes;
mod login_failures;
mod operation_routes;
mod problem;
mod profile_routes;
mod progress;
pub mod public;
mod recurrence_routes;
mod request;
mod router;
mod routes;
mod statistics_routes;
mod token_routes;
mod unit_scope;

pub use api::{Api, Operations};
pub use listen::serve;
pub use public::{PUBLIC_ROUTES, PublicListener};
pub use router::router;
pub use routes::{ROUTES, Route};
