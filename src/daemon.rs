//! The running process: its name in leases, its tasks, and the signal to end.

use std::sync::Arc;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The identity and the end of this process. Cheap to clone.
#[derive(Clone)]
pub struct Daemon {
    /// The name of this process in every lease that it takes.
    pub owner: u64,
    /// The owners of earlier processes with this state directory. They are dead, so their leases
    /// can be taken over at once.
    pub dead_owners: Arc<[u64]>,
    /// Every task that must end before the process ends.
    pub tracker: TaskTracker,
    /// Cancelled when the daemon must end: from then on nothing new is begun.
    pub shutdown: CancellationToken,
}
