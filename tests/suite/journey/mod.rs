//! A delivery from its definition to its last message.
//!
//! The tests cover proofs, fatigue rules, rates and fairness.

mod fatigue;
mod main_job;
mod proofs;
mod throttles;
