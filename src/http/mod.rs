//! TODO head

mod actions;
mod deliveries;
mod denylist;
mod events;
mod listen;
mod login_failures;
mod logs;
mod operations;
mod problem;
mod profiles;
pub mod public;
mod recurrence;
mod request;
mod router;
mod routes;
mod statistics;

pub use listen::{Peer, Respond, serve};
pub use operations::metrics;
pub use problem::Problem;
pub use public::{PUBLIC_ROUTES, PublicListener};
pub use router::{Api, Operations, known, router};
pub use routes::{ROUTES, Route};
