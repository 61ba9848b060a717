//! Versand releases prepared e-mail deliveries, sends them and accounts for every recipient.
//!
//! # The map
//!
//! The journey of a delivery is [`send`], one file a step: `edit`, `upload`, `prepare`, `confirm`, `release`, `chunk`, `finish`, `settle`,
//! and `reconcile`, which finds what a crash left behind; `recur` creates the occurrences of recurring deliveries, `retention` removes
//! what was kept long enough. HTTP ([`http`]), jobs
//! ([`worker`]) and cron ([`scheduler`]) are thin and all call it; they never import each other.
//!
//! | layer | what it is |
//! |---|---|
//! | [`domain`] | pure: states, ledger, digest, audit chain, KPIs; no I/O, no clock |
//! | [`config`], [`metrics`], [`identity`] | settings; every metric; who calls |
//! | [`store`] | the only user of Redis commands besides the queue; every key in one file; the scripts |
//! | [`mail`] | templates to messages, the relays (SMTP), the built-in catcher |
//! | [`queue`] | the jobs; the only user of apalis |
//! | [`send`] | the journey |
//! | [`app`] | the only wiring |
//!
//! # Invariants
//!
//! - A recipient is claimed in its ledger before its SMTP transaction and recorded after; nothing else starts a transaction.
//! - A delivery changes only by a compare-and-set on its revision, with its audit entry in the same script.
//! - A step writes state first and enqueues after. A job is a hint: lost or doubled, it changes nothing but time.
//! - Nobody compares wall clocks to decide who holds a chunk.
//! - Logs never hold an address or content.

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod deliveries;
pub mod demo;
pub mod domain;
pub mod feedback;
pub mod http;
pub mod identity;
pub mod logging;
pub mod mail;
pub mod metrics;
pub mod observe;
pub mod queue;
pub mod redis_server;
pub mod report;
pub mod scheduler;
pub mod send;
pub mod store;
pub mod worker;
