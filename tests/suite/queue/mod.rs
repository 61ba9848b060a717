//! The queue: its jobs, the traps of apalis, dead jobs, and confirmations by other programs.

mod apalis_traps;
mod confirmation;
mod dead_jobs;
mod jobs;
