//! The embedded redis-server and the state directory.
//!
//! By default the daemon runs a private redis-server, reached through a Unix socket in the state
//! directory. The server writes each command to disk before it answers.
//!
//! Entry points:
//! - [`StateDir`] locks the state directory for one daemon. It gives the daemon a new owner id for
//!   its leases, knows the dead predecessors, and keeps the secrets.
//! - [`EmbeddedRedis`] starts the server, or adopts the server of a killed daemon. It starts the
//!   server again whenever it ends, and stops it at the shutdown.
//!
//! A server outlives its killed daemon on purpose: the next daemon adopts it without a restart.
//!
//! Not here: every Redis command except PING and SHUTDOWN ([`crate::store`], [`crate::queue`]).
//!
//! With `redis.url` set, the embedded server is not used, but the state directory still is.

mod embedded;
mod embedded_error;
mod place;
pub mod private_file;
mod server;
mod server_log;
mod state_dir;

pub use embedded::{EmbeddedRedis, socket_url};
pub use embedded_error::EmbeddedError;
pub use state_dir::{DirLock, StateDir, StateError, mark_restored};
