//! Tracking in Redis: the tracking log of a delivery, and the statistics computed from it.
//!
//! The log is a sequence of blocks of [`HITS_PER_BLOCK`] lines; a line is one hit of 36 bytes. The
//! last three bytes of a ledger record summarise the hits of that recipient. The log is the truth,
//! these bytes are a cache.
//!
//! Entry points: [`TrackingStore`] records hits, reads and relabels the log, and keeps the
//! statistics. [`PreparationRef`] names the preparation that a tracked link belongs to.
//! [`StatisticsBasis`] guards each write of a computation: nothing is written if its basis changed.
//!
//! A human hit settles a recipient in doubt as sent (`hit_resolves_in_doubt.lua`).
//!
//! Not here: kinds, classes and labels of hits are in [`crate::domain::tracking`]. Hits are
//! received and statistics are computed in `feedback`.

mod hit_log;
mod hits;
mod kept_statistics;

pub use hit_log::{StatisticsBasis, TrackingLogExtent};
pub use hits::{HITS_PER_BLOCK, PreparationRef, TrackingStore};
