//! The table of cron tasks: when each one runs, and which service does it.
//!
//! Every task runs in every daemon, so a task may run twice at the same time.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::sync::{Mutex, Notify};
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use crate::{
    daemon::{Daemon, LifeSign},
    feedback::Feedback,
    metrics,
    observe::Observation,
    send::Journey,
};

/// How long to wait for a tick before the scheduler is started anew. After the clock was set back,
/// the scheduler would otherwise wait until the clock has caught up.
const TICK_TIMEOUT: Duration = Duration::from_secs(5);

/// The services that the tasks call.
pub struct Tasks {
    /// The steps of a delivery's journey.
    pub journey: Journey,
    /// The statistics.
    pub feedback: Feedback,
    /// The gauges.
    pub observation: Observation,
    /// This process and its shutdown.
    pub daemon: Daemon,
    /// Noted at each tick.
    pub sign: LifeSign,
}

/// Starts the tasks. They end at the shutdown.
///
/// # Errors
/// The scheduler cannot be started.
pub async fn start(tasks: Tasks) -> Result<(), JobSchedulerError> {
    let ticks = Arc::new(Notify::new());
    let first = schedule(&tasks, &ticks).await?;
    let (pulse, sweep) = (tasks.journey.recover.pulse.clone(), tasks.journey.recover.sweep.clone());
    let (tracker, shutdown) = (tasks.daemon.tracker.clone(), tasks.daemon.shutdown.clone());
    tracker.spawn(async move { pulse.pulse().await });
    tracker.spawn(async move { shutdown.run_until_cancelled(sweep.sweep()).await });
    tracker.spawn(async move { keep_running(&tasks, first, &ticks).await });
    Ok(())
}

/// Starts the scheduler anew whenever it stands still.
async fn keep_running(tasks: &Tasks, mut scheduler: JobScheduler, ticks: &Arc<Notify>) {
    let ticked = async || tokio::time::timeout(TICK_TIMEOUT, ticks.notified()).await;
    while let Some(ticked) = tasks.daemon.shutdown.run_until_cancelled(ticked()).await {
        if ticked.is_ok() {
            continue;
        }
        tracing::warn!(
            "no tick for {TICK_TIMEOUT:?}, probably because the clock was set back: \
             starting the scheduler anew"
        );
        let _ = scheduler.shutdown().await;
        tasks.journey.recover.sweep.make_all_chunks_ready().await;
        match schedule(tasks, ticks).await {
            Ok(another) => scheduler = another,
            Err(error) => {
                tracing::error!(%error, "the scheduler cannot be started, trying again")
            }
        }
    }
    let _ = scheduler.shutdown().await;
}

/// Makes and starts a scheduler with all tasks.
async fn schedule(tasks: &Tasks, ticks: &Arc<Notify>) -> Result<JobScheduler, JobSchedulerError> {
    let (scheduler, ticks, sign) = (JobScheduler::new().await?, ticks.clone(), tasks.sign.clone());
    let tick = move |_, _| -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (ticks, sign) = (ticks.clone(), sign.clone());
        Box::pin(async move {
            sign.note();
            ticks.notify_one();
        })
    };
    scheduler.add(Job::new_async("* * * * * *", tick)?).await?;
    for task in journey_tasks(tasks)?.into_iter().chain(upkeep_tasks(tasks)?) {
        scheduler.add(task).await?;
    }
    scheduler.start().await?;
    Ok(scheduler)
}

/// The tasks that move deliveries on, keep the throttles in step and tidy up jobs that ended.
fn journey_tasks(tasks: &Tasks) -> Result<[Job; 5], JobSchedulerError> {
    let Tasks { journey, daemon, .. } = tasks;
    let (release, recover) = (&journey.release, &journey.recover);
    Ok([
        every("* * * * * *", daemon, "reconcile", &recover.reconciler, |s| async move {
            s.reconcile_all().await
        })?,
        every("* * * * * *", daemon, "release", &release.due_waves, |s| async move {
            s.release_due().await
        })?,
        every("* * * * * *", daemon, "throttles", &journey.throttle_watch, |s| async move {
            s.observe().await
        })?,
        every("* * * * * *", daemon, "recur", &journey.define.recurrences, |s| async move {
            s.create_due().await
        })?,
        every("*/10 * * * * *", daemon, "sweep", &journey.confirm.from_queue, |s| async move {
            s.sweep_jobs().await
        })?,
    ])
}

/// The tasks that observe, heal the lists of deliveries, count and remove.
fn upkeep_tasks(tasks: &Tasks) -> Result<[Job; 6], JobSchedulerError> {
    let Tasks { journey, feedback, observation, daemon, .. } = tasks;
    let (recover, operate) = (&journey.recover, &journey.operate);
    Ok([
        // Each second: a replica that came back counts only after this task has seen it.
        every("* * * * * *", daemon, "durability", &recover.pulse, |s| async move {
            s.observe_durability().await
        })?,
        every("*/2 * * * * *", daemon, "observe", &observation.gauges, |s| async move {
            s.observe().await
        })?,
        every("*/5 * * * * *", daemon, "ratios", &observation.ratios, |s| async move {
            s.observe().await
        })?,
        every("0 * * * * *", daemon, "heal", &recover.sweep, |s| async move { s.sweep().await })?,
        // Each minute, although the statistics are hourly: another daemon finishes the hour of one
        // that died.
        every("30 * * * * *", daemon, "statistics", &feedback.statistics, |s| async move {
            s.hourly().await
        })?,
        every("45 * * * * *", daemon, "retention", &operate.retention, |s| async move {
            s.run().await
        })?,
    ])
}

/// A cron task that never overlaps itself within one scheduler. The cron scheduler alone would
/// allow it.
///
/// If `task` returns true, its success is noted in the metrics under `name`.
fn every<S, F, T>(
    cron: &str,
    daemon: &Daemon,
    name: &'static str,
    service: &S,
    task: T,
) -> Result<Job, JobSchedulerError>
where
    S: Clone + Send + Sync + 'static,
    T: Fn(S) -> F + Send + Sync + 'static,
    F: Future<Output = bool> + Send + 'static,
{
    let (shutdown, service) = (daemon.shutdown.clone(), service.clone());
    let (task, running) = (Arc::new(task), Arc::new(Mutex::new(())));
    Job::new_async(cron, move |_, _| {
        let (shutdown, service, task, running) =
            (shutdown.clone(), service.clone(), task.clone(), running.clone());
        Box::pin(async move {
            let Ok(_guard) = running.try_lock() else { return };
            if !shutdown.is_cancelled() && task(service).await {
                metrics::task_succeeded(name);
            }
        })
    })
}
