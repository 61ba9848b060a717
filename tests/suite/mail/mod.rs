//! Messages and their transport: rendering, transactions, connections, relays, real servers.

mod connections;
mod foreign_servers;
mod messages;
mod pipelining;
mod postfix;
mod relays;
mod smtp_test_mode;
mod templates;
mod tls_and_auth;
mod tracked_messages;
mod transactions;
