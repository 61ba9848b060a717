//! The journey of a delivery, from its definition to its end; one folder for each step.
//!
//! In order: [`define`], [`prepare`], [`confirm`], [`release`], [`chunk`]. Beside them stand
//! [`limits`] (throttles, admission, circuit breakers), [`recover`] (repairs after a crash)
//! and [`operate`] (interventions of persons, and the retention).
//!
//! Entry points: [`Journey`] holds every step for HTTP, for the queue workers and for the
//! scheduler. [`StepJobs`] puts the jobs of preparations and starts on the queue.
//!
//! Each step writes the state first and queues jobs after. A job is a hint: a lost or doubled
//! job costs time and changes nothing else.
//!
//! Not in here: reading and changing a delivery ([`crate::deliveries`]), messages and SMTP
//! ([`crate::mail`]), hits and opt-outs ([`crate::feedback`]), logs ([`crate::report`]), gauges
//! ([`crate::observe`]).

pub mod chunk;
pub mod confirm;
pub mod define;
mod journey;
pub mod limits;
pub mod operate;
pub mod prepare;
pub mod recover;
pub mod release;
mod step_jobs;

pub use journey::{ConfirmSteps, DefineSteps, Journey, OperateSteps, RecoverSteps, ReleaseSteps};
pub use step_jobs::StepJobs;
