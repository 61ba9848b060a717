//! The watchdog of systemd: it is fed only while the runtime, the scheduler and the workers move.
//!
//! While the daemon drains, only the runtime must move.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{daemon::LifeSign, queue::WorkerHealth};

/// A worker that waits for Redis shows life at least once within so many response times ...
const RESPONSES: u32 = 3;
/// ... and the pause before it tries again.
const PAUSE: Duration = Duration::from_secs(15);

/// The parts that must move, so that the watchdog is fed.
pub(super) struct Watchdog {
    pub scheduler: LifeSign,
    pub workers: WorkerHealth,
    /// How long one answer of Redis may take.
    pub response: Duration,
    /// Cancelled when the daemon drains. From then on its time is limited anyway.
    pub shutdown: CancellationToken,
}

impl Watchdog {
    /// Feeds the watchdog until `end`. Returns at once if systemd asks for no watchdog.
    pub(super) async fn feed(self, end: CancellationToken) {
        let Some(period) = sd_notify::watchdog_enabled() else { return };
        let mut fed = true;
        while end.run_until_cancelled(tokio::time::sleep(period / 4)).await.is_some() {
            let stuck = self.stuck(period).await;
            match &stuck {
                None => {
                    let _ = sd_notify::notify(&[NotifyState::Watchdog]);
                }
                Some(what) if fed => {
                    tracing::error!(what, "the watchdog is not fed: this does not move any more");
                }
                Some(_) => {}
            }
            fed = stuck.is_none();
        }
    }

    /// The part that has stopped moving, if there is one.
    async fn stuck(&self, period: Duration) -> Option<&'static str> {
        // a task of its own must get its turn on the runtime
        let turn = tokio::time::timeout(period / 4, TaskTracker::new().spawn(async {}));
        if !matches!(turn.await, Ok(Ok(()))) {
            return Some("the runtime");
        }
        if self.shutdown.is_cancelled() {
            return None;
        }
        if self.scheduler.age() > period {
            return Some("the scheduler");
        }
        // without Redis the workers end and begin again, which is life
        let most = period + self.response * RESPONSES + PAUSE;
        (self.workers.oldest_sign() > most).then_some("a queue worker")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_scheduler_that_stands_still_is_named_until_the_daemon_drains() {
        let watchdog = Watchdog {
            scheduler: LifeSign::default(),
            workers: WorkerHealth::default(),
            response: Duration::ZERO,
            shutdown: CancellationToken::new(),
        };
        let period = Duration::from_secs(3600);
        assert_eq!(watchdog.stuck(period).await, None);
        let short = Duration::from_millis(200);
        while watchdog.scheduler.age() <= short {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(watchdog.stuck(short).await, Some("the scheduler"));
        watchdog.scheduler.note();
        assert_eq!(watchdog.stuck(period).await, None);
        while watchdog.scheduler.age() <= short {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        watchdog.shutdown.cancel();
        assert_eq!(watchdog.stuck(short).await, None);
    }

    /// Each thread of the runtime is busy: nothing gets a turn, so nobody feeds the watchdog.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_runtime_whose_threads_are_busy_gives_no_turn() {
        let busy = TaskTracker::new();
        let (enough, begun) =
            (CancellationToken::new(), std::sync::Arc::new(std::sync::Barrier::new(3)));
        for _ in 0..2 {
            let (enough, begun) = (enough.clone(), begun.clone());
            busy.spawn(async move {
                begun.wait();
                while !enough.is_cancelled() {
                    std::hint::spin_loop();
                }
            });
        }
        begun.wait();
        let turn = TaskTracker::new().spawn(async {});
        std::thread::sleep(Duration::from_millis(300));
        assert!(!turn.is_finished(), "a busy runtime gave a turn");
        enough.cancel();
        assert!(turn.await.is_ok());
    }
}
