//! The list of jobs that run in this process.

use std::{collections::HashMap, sync::Mutex};

use futures_util::future::{BoxFuture, Shared};

use super::{lock::locked, queue_name::QueueName, received_job::JobError};

/// The end of a run. Several callers can wait for it.
pub(super) type JobEnding = Shared<BoxFuture<'static, Result<(), JobError>>>;

/// The jobs that run in this process, each with its end.
///
/// A worker that ends drops its futures, but the runs go on. Its successor gets the same jobs. It
/// waits for their runs instead of starting them a second time.
#[derive(Default)]
pub(super) struct RunningJobs {
    pub jobs: Mutex<HashMap<(QueueName, String), JobEnding>>,
}

impl RunningJobs {
    /// True if a job of this queue is running.
    pub fn any(&self, name: QueueName) -> bool {
        locked(&self.jobs).keys().any(|(queue, _)| *queue == name)
    }
}
