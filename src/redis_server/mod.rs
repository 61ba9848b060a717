//! TODO head

pub mod embedded;
pub mod server;
pub mod state_dir;

pub use embedded::{EmbeddedError, EmbeddedRedis};
pub use state_dir::{StateDir, StateError};
