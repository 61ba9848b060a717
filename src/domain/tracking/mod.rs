//! TODO head

pub mod hit;
pub mod kpi;
pub mod labelling;
pub mod machine_rules;
pub mod statistics;

pub use hit::{
    HIT_BYTES, Hit, HitClass, HitKind, HitLabel, LABEL_AT, NO_AGENT, NO_LINK, TrackedLink, signs,
    tracked,
};
pub use kpi::{Kpis, rate};
pub use labelling::{Labelling, Relabelled};
pub use machine_rules::{BUILT_IN, MachineRules, UserAgent, networks};
pub use statistics::{LinkClicks, Statistics, StatisticsCount};
