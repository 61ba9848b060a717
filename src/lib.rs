//! Versand releases prepared e-mail deliveries, sends them and accounts for every recipient.

pub mod config;
pub mod domain;
pub mod mail;
pub mod queue;
pub mod store;
