//! The queue room owns the jobs: how they wait, run, end and are forgotten.
//!
//! A job is a hint, not a fact: it says that a step is worth trying. A job may therefore be
//! delivered twice, and a step that finds nothing to do ends well.
//!
//! - [`Queue`] puts jobs on the four queues ([`QueueName`]), shows them and forgets old ones.
//! - [`Workers`] runs a handler on the jobs of a queue, supervises the apalis workers, and reports
//!   to [`WorkerHealth`] which of them live.
//! - [`Job`] and [`ConfirmSend`] are the payloads: our own, and the public one.
//! - [`ReceivedJob`] is what a handler gets. [`JobError`] says how a run that failed goes on.
//!
//! Only this room uses apalis. The Lua scripts lie beside the Rust files; `docs/queue.md` is the
//! contract for producers that are not ours.
//!
//! Not here: the handlers (`worker` picks the step for each job, `send` holds the steps), and the
//! choice of the next chunk to queue (`send::release::FairQueue`). All other Redis keys are in
//! `store`.

mod dead_jobs;
mod enqueue;
mod inspect;
mod job;
mod job_id;
mod job_retention;
mod job_run;
mod lock;
mod orphan_recovery;
mod queue_error;
mod queue_name;
mod received_job;
mod running_jobs;
mod scripts;
mod wake_up;
mod worker_health;
mod workers;

pub use dead_jobs::{DeadJob, DeadPage};
pub use enqueue::Queue;
pub use inspect::{FirstJob, JobState, JobStatus, QueueDepth};
pub use job::{ConfirmSend, Job};
pub use job_retention::SweptJobs;
pub use queue_error::QueueError;
pub use queue_name::QueueName;
pub use received_job::{JobError, ReceivedJob};
pub use worker_health::{WorkerHealth, WorkerState};
pub use workers::Workers;
