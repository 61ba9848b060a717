//! Failures of daemons, Redis, relays and disks.
//!
//! Nobody is lost, and nothing is stuck. Nobody gets a message twice, except under the policy
//! `resend`.

mod crash;
mod disk_full;
mod outages;
mod partial_writes;
mod poisoned_chunks;
mod random;
mod recovery;
