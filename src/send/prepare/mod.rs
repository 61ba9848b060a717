//! The preparation: computes target and exclusions, checks the content, and fixes the digest.
//!
//! It sends nothing and can be stopped at any time. Entry points:
//!
//! - [`Preparations`] takes the request of a person and runs the job.
//! - `pass` goes through the audience once. The other files are its parts: the check of the
//!   definition, exclusions, the dry run, chunking, the message index.
//!
//! The result is a plan: chunks, waves, settings and the digest that a confirmation must name.
//! Every preparation has a generation of its own, so two preparations never mix.
//!
//! Not in here: the rules of fatigue and the denylist, which are asked again when a chunk is sent
//! ([`crate::send::limits`]); templates and messages ([`crate::mail`]); the confirmation
//! ([`crate::send::confirm`]); the ledgers, which are made at the start
//! ([`crate::send::release`]).

mod chunking;
mod definition_check;
mod dry_run;
mod dry_run_effort;
mod exclusions;
mod findings;
mod index_writer;
mod pass;
mod past_dues;
mod preparation;
mod preparations;

pub use preparation::PassTools;
pub use preparations::Preparations;
