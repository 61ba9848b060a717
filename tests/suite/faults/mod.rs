//! Failures of daemons, Redis, relays and disks.
//!
//! Nobody is lost, nobody gets a message twice, and nothing is stuck.

mod crash;
mod disk_full;
mod outages;
mod partial_writes;
mod poisoned_chunks;
mod random;
mod recovery;
