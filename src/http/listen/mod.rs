//! The part of the HTTP room that accepts connections and keeps their limits.
//!
//! - [`serve`] accepts the connections of one listener. [`ListenerOptions`] says how.
//! - `ListenerSlots` decides who gets a slot: so many connections for each client network, and
//!   so many in all. A connection that no request holds gives way to a new one.
//! - [`ClientNetwork`] is who counts as one client, also behind trusted proxies.
//! - [`ListenerTls`] is the TLS of the admin listener. It takes over a changed certificate.
//! - `http_connection` speaks HTTP on one connection, with its time-outs. `head_check` refuses
//!   heads that a proxy might read in another way.
//! - `turned_away` answers a connection that gets no slot.
//!
//! Not here: the limits of a principal (`principal_limits`) and failed log-ins (`login_failures`).

mod accept;
mod client_network;
mod head_check;
mod http_connection;
mod listener_slots;
mod listener_tls;
mod turned_away;

pub use accept::{ListenerOptions, serve};
pub use client_network::{ClientNetwork, forwarded};
pub use http_connection::{Peer, Respond, method_label};
pub use listener_slots::BusyMark;
pub use listener_tls::ListenerTls;
