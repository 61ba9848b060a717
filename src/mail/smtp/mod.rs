//! SMTP: connections to the relays, one transaction after the other over each (RFC 5321).
//!
//! Entry points:
//!
//! - [`Relays`] are all configured relays. [`Relays::route`] names those that send for a sender;
//!   [`Relays::connection`] gives a connection of one of them.
//! - [`Relay`] is one relay with its pool of connections.
//! - [`SmtpConnection::send`] runs one transaction; [`SmtpConnection::test`] ends it after RCPT.
//! - [`Envelope`] holds the two addresses; [`Transaction`] says how an attempt ended.
//!
//! Files, from the bytes upwards: `wire`, `dot_stuffing`, `fault`, `handshake`, `transaction`,
//! `session`, `connection_slots`, `backoff` and `outage`, `pool`, `connection`, `relay`,
//! `sender_mask`, `routing`.
//!
//! Not here: the messages come from [`template`](super::template). `send/limits` holds throttles
//! and the fair division of connections between deliveries; `domain/outcome` reads replies.

mod backoff;
mod connection;
mod connection_slots;
mod dot_stuffing;
mod fault;
mod handshake;
mod outage;
mod pool;
mod relay;
mod routing;
mod sender_mask;
mod session;
mod transaction;
mod wire;

pub use connection::SmtpConnection;
pub use fault::{RelayError, RelayFault};
pub use relay::Relay;
pub use routing::{RelayRoute, Relays};
pub use transaction::{Envelope, Transaction};
