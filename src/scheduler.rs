//! One line per cron task: which step it runs. Every task runs on every replica and may run twice.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::sync::{Mutex, Notify};
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use crate::{daemon::Daemon, feedback::Feedback, metrics, observe::Observation, send::Journey};

/// So long without a tick, and the scheduler is started anew: when the clock goes back it would wait until it has caught up.
const SILENCE: Duration = Duration::from_secs(5);

/// What the tasks are made of.
pub struct Tasks {
    pub journey: Journey,
    pub feedback: Feedback,
    pub observation: Observation,
    pub daemon: Daemon,
}

/// Starts the tasks; they end with the shutdown.
pub async fn start(tasks: Tasks) -> Result<(), JobSchedulerError> {
    let ticks = Arc::new(Notify::new());
    let first = schedule(&tasks, &ticks).await?;
    let (pulse, sweep) = (tasks.journey.recover.pulse.clone(), tasks.journey.recover.sweep.clone());
    let (tracker, shutdown) = (tasks.daemon.tracker.clone(), tasks.daemon.shutdown.clone());
    tracker.spawn(async move { pulse.pulse().await });
    tracker.spawn(async move { shutdown.run_until_cancelled(sweep.sweep()).await });
    tracker.spawn(async move { keep(&tasks, first, &ticks).await });
    Ok(())
}

async fn keep(tasks: &Tasks, mut scheduler: JobScheduler, ticks: &Arc<Notify>) {
    let ticked = async || tokio::time::timeout(SILENCE, ticks.notified()).await;
    while let Some(ticked) = tasks.daemon.shutdown.run_until_cancelled(ticked()).await {
        if ticked.is_ok() {
            continue;
        }
        tracing::warn!(
            "no tick for {SILENCE:?}, as when the clock was set back: the scheduler is started anew"
        );
        let _ = scheduler.shutdown().await;
        tasks.journey.recover.sweep.make_all_chunks_ready().await;
        match schedule(tasks, ticks).await {
            Ok(another) => scheduler = another,
            Err(error) => {
                tracing::error!(%error, "the scheduler cannot be started: it is tried again")
            }
        }
    }
    let _ = scheduler.shutdown().await;
}

async fn schedule(tasks: &Tasks, ticks: &Arc<Notify>) -> Result<JobScheduler, JobSchedulerError> {
    let (scheduler, ticks) = (JobScheduler::new().await?, ticks.clone());
    let Tasks { journey, feedback, observation, daemon } = tasks;
    let (release, recover, operate) = (&journey.release, &journey.recover, &journey.operate);
    let tick = move |_, _| -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let ticks = ticks.clone();
        Box::pin(async move { ticks.notify_one() })
    };
    scheduler.add(Job::new_async("* * * * * *", tick)?).await?;
    scheduler
        .add(every("* * * * * *", daemon, "reconcile", &recover.reconciler, |s| async move {
            s.reconcile_all().await
        })?)
        .await?;
    scheduler
        .add(every("* * * * * *", daemon, "release", &release.due_waves, |s| async move {
            s.release_due().await
        })?)
        .await?;
    scheduler
        .add(every("* * * * * *", daemon, "throttles", &journey.throttle_watch, |s| async move {
            s.observe().await
        })?)
        .await?;
    scheduler
        .add(every("* * * * * *", daemon, "recur", &journey.define.recurrences, |s| async move {
            s.create_due().await
        })?)
        .await?;
    scheduler
        .add(every("*/2 * * * * *", daemon, "observe", &observation.gauges, |s| async move {
            s.observe().await
        })?)
        .await?;
    scheduler
        .add(every(
            "*/10 * * * * *",
            daemon,
            "sweep",
            &journey.confirm.from_queue,
            |s| async move { s.sweep_jobs().await },
        )?)
        .await?;
    scheduler
        .add(every("45 * * * * *", daemon, "retention", &operate.retention, |s| async move {
            s.run().await
        })?)
        .await?;
    // often: until a replica that came back is seen, a fail-over to it is not reckoned with
    scheduler
        .add(every("* * * * * *", daemon, "durability", &recover.pulse, |s| async move {
            s.observe_durability().await
        })?)
        .await?;
    scheduler
        .add(every(
            "0 * * * * *",
            daemon,
            "heal",
            &recover.sweep,
            |s| async move { s.sweep().await },
        )?)
        .await?;
    scheduler
        .add(every("*/5 * * * * *", daemon, "ratios", &observation.ratios, |s| async move {
            s.observe().await
        })?)
        .await?;
    // each minute, so that an hour whose daemon died is finished by another one
    scheduler
        .add(every("30 * * * * *", daemon, "statistics", &feedback.statistics, |s| async move {
            s.hourly().await
        })?)
        .await?;
    scheduler.start().await?;
    Ok(scheduler)
}

/// A cron task that says whether it succeeded and never overlaps itself: the scheduler does not guard against that.
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
