//! Versand releases prepared e-mail deliveries, sends them and accounts for every recipient.

pub mod config;
pub mod domain;
pub mod mail;
pub mod metrics;
pub mod queue;
pub mod send;
pub mod store;
