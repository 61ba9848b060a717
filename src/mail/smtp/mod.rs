//! TODO head

pub mod backoff;
pub mod connection;
pub mod connection_slots;
pub mod dot_stuffing;
pub mod fault;
pub mod handshake;
pub mod relay;
pub mod relay_limits;
pub mod routing;
pub mod sender_mask;
pub mod session;
pub mod transaction;
pub mod wire;

pub use connection::SmtpConnection;
pub use fault::{RelayError, RelayFault};
pub use relay::Relay;
pub use routing::{RelayRoute, Relays};
pub use transaction::{Envelope, Transaction};
