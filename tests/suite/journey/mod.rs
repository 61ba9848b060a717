//! A delivery from its definition to its last message.
//!
//! The tests cover the main job, proofs, fatigue rules, throttles, circuit breakers and fairness.

mod fatigue;
mod main_job;
mod proofs;
mod throttles;
