//! Versand releases prepared e-mail deliveries, sends them and accounts for every recipient.

pub mod app;
pub mod cli;
pub mod config;
pub mod demo;
pub mod domain;
pub mod http;
pub mod identity;
pub mod mail;
pub mod metrics;
pub mod queue;
pub mod scheduler;
pub mod send;
pub mod store;
pub mod worker;
