//! This process: its name in leases, its tasks and its end.

use std::sync::Arc;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What tells this process from others, and what ends it. Cheap to clone.
#[derive(Clone)]
pub struct Daemon {
    /// This process, in every lease it takes.
    pub owner: u64,
    /// Processes that had the state directory before this one: their leases need no waiting.
    pub dead_owners: Arc<[u64]>,
    /// The tasks that the end of the process waits for.
    pub tracker: TaskTracker,
    /// Cancelled when the daemon is asked to end: no new work, finish what was begun.
    pub shutdown: CancellationToken,
}
