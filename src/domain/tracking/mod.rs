//! Feedback of recipients: hits, their labels, statistics and KPIs.
//!
//! - [`Hit`]: one request to the public listener, as the tracking log stores it. [`HitKind`] is
//!   what was asked for, [`HitClass`] who is taken to have asked, [`HitLabel`] why.
//! - [`MachineRules`]: the rules that give a hit its label, from `config/machines.toml`.
//! - [`Labelling`] reads a whole tracking log, with its labels or with new ones.
//! - [`StatisticsCount`] and [`Statistics`]: opens, clicks and opt-outs. [`Kpis`]: key figures.
//! - [`tracked`]: the bits that a ledger keeps of the tracking log.
//!
//! The links in a message are in [`crate::mail::links`], the stored log in
//! [`crate::store::tracking`], and the services that record and compute in [`crate::feedback`].

mod hit;
mod kpi;
mod labelling;
mod machine_rules;
mod rate;
mod statistics;

pub use hit::{
    HIT_BYTES, Hit, HitClass, HitKind, HitLabel, LABEL_AT, NO_AGENT, NO_LINK, TrackedLink, signs,
    tracked,
};
pub use kpi::Kpis;
pub use labelling::{Labelling, Relabelled};
pub use machine_rules::{BUILT_IN, MachineRules, UserAgent, networks};
pub use rate::rate;
pub use statistics::{LinkClicks, Statistics, StatisticsCount};
