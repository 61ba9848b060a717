//! The only wiring: settings go in, a running daemon comes out.
//!
//! - [`Application`] opens sockets, Redis and the relays, starts the workers and the scheduler,
//!   and ends them in order.
//! - [`ForeignKey`] is the error of a daemon that lacks the key of the installation.
//! - [`Services`] holds every service of a daemon; tests call them directly.
//! - [`Reload`] takes new settings over while the daemon runs. Each part that a reload replaces
//!   is registered in `reload_parts`.
//! - [`Parts`] are the handles that the services are made of. The folder `wiring` says which
//!   service gets which handles, room by room.
//!
//! No other room names this one, except the command line ([`crate::cli`]) and the demo
//! ([`crate::demo`]). No rule about deliveries stands here: the steps are in [`crate::send`].
//! Settings are read and checked in [`crate::config`]. The embedded Redis is started here but
//! lives in [`crate::redis_server`].

mod application;
mod installation;
mod kept_audit_head;
mod listeners;
mod open_store;
mod own_token;
mod reload;
mod reload_parts;
mod services;
mod start_error;
mod watchdog;
mod wiring;

pub use application::Application;
pub use installation::ForeignKey;
pub use reload::Reload;
pub use services::Services;
pub use start_error::{WrongSettings, needs_a_person};
pub use wiring::Parts;
