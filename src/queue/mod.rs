//! TODO head

pub mod enqueue;
pub mod inspect;
pub mod job;
pub mod job_retention;
pub mod job_run;
pub mod orphan_recovery;
pub mod scripts;
pub mod wake_up;
pub mod worker_health;
pub mod workers;

pub use enqueue::{Queue, QueueError, QueueName};
pub use inspect::{DeadJob, DeadPage, FirstJob, JobState, JobStatus, QueueDepth};
pub use job::{ConfirmSend, Job};
pub use job_retention::SweptJobs;
pub use job_run::{JobError, ReceivedJob};
pub use worker_health::{WorkerHealth, WorkerState};
pub use workers::Workers;
