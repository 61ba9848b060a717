//! Threads for templates: work that a stranger's template may make long.

use std::{num::NonZero, sync::Arc, thread::available_parallelism};

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::Semaphore,
    task::{JoinError, block_in_place, spawn_blocking},
};

/// Runs the work of templates beside the tasks of the daemon, on all cores but one.
///
/// So the APIs have a core, unless the machine has only one. Callers that wait are served in order.
/// All clones share the threads.
#[derive(Clone)]
pub struct TemplateThreads(Arc<Semaphore>);

impl Default for TemplateThreads {
    fn default() -> Self {
        let cores = available_parallelism().map_or(1, NonZero::get);
        Self(Arc::new(Semaphore::new((cores - 1).max(1))))
    }
}

impl TemplateThreads {
    /// Runs `work` on a thread of its own. Work that has begun runs to its end, even if nobody
    /// waits for it any more.
    ///
    /// # Errors
    ///
    /// The work panicked, or the runtime ends.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        // The semaphore is never closed, so there is always a permit.
        let permit = self.0.clone().acquire_owned().await.ok();
        spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        })
        .await
    }
}

/// Runs `work` at once, while the other tasks of this thread go to another thread.
pub fn run_in_place<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => block_in_place(work),
        _ => work(),
    }
}
