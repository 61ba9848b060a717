//! One line per cron task: which step it runs. Every task runs on every replica and may run twice.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::sync::{Mutex, Notify};
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use crate::{deliveries::Context, metrics};

/// So long without a tick, and the scheduler is started anew: when the clock goes back it would wait until it has caught up.
const SILENCE: Duration = Duration::from_secs(5);

/// Starts the tasks; they end with the shutdown.
pub async fn start(context: &Context) -> Result<(), JobSchedulerError> {
    let ticks = Arc::new(Notify::new());
    let first = tasks(context, &ticks).await?;
    let (healer, pulse, keeper) = (context.clone(), context.clone(), context.clone());
    context.tracker.spawn(async move { pulse.pulse().await });
    context.tracker.spawn(async move { healer.shutdown.run_until_cancelled(healer.heal()).await });
    context.tracker.spawn(async move { keep(&keeper, first, &ticks).await });
    Ok(())
}

async fn keep(context: &Context, mut scheduler: JobScheduler, ticks: &Arc<Notify>) {
    let ticked = async || tokio::time::timeout(SILENCE, ticks.notified()).await;
    while let Some(ticked) = context.shutdown.run_until_cancelled(ticked()).await {
        if ticked.is_ok() {
            continue;
        }
        tracing::warn!("no tick for {SILENCE:?}, as when the clock was set back: the scheduler is started anew");
        let _ = scheduler.shutdown().await;
        context.look_at_all().await;
        match tasks(context, ticks).await {
            Ok(another) => scheduler = another,
            Err(error) => tracing::error!(%error, "the scheduler cannot be started: it is tried again"),
        }
    }
    let _ = scheduler.shutdown().await;
}

async fn tasks(context: &Context, ticks: &Arc<Notify>) -> Result<JobScheduler, JobSchedulerError> {
    let (scheduler, ticks) = (JobScheduler::new().await?, ticks.clone());
    let tick = move |_, _| -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let ticks = ticks.clone();
        Box::pin(async move { ticks.notify_one() })
    };
    scheduler.add(Job::new_async("* * * * * *", tick)?).await?;
    scheduler.add(every("* * * * * *", context, "reconcile", |c| async move { c.reconcile_all().await })?).await?;
    scheduler.add(every("* * * * * *", context, "release", |c| async move { c.release_due().await })?).await?;
    scheduler.add(every("* * * * * *", context, "throttles", |c| async move { c.observe_throttles().await })?).await?;
    scheduler.add(every("* * * * * *", context, "recur", |c| async move { c.recur_all().await })?).await?;
    scheduler.add(every("*/2 * * * * *", context, "observe", |c| async move { c.observe().await })?).await?;
    scheduler.add(every("*/10 * * * * *", context, "sweep", |c| async move { c.sweep_jobs().await })?).await?;
    scheduler.add(every("45 * * * * *", context, "retention", |c| async move { c.retain_all().await })?).await?;
    // often: until a replica that came back is seen, a fail-over to it is not reckoned with
    scheduler.add(every("* * * * * *", context, "durability", |c| async move { c.observe_durability().await })?).await?;
    scheduler.add(every("0 * * * * *", context, "heal", |c| async move { c.heal().await })?).await?;
    scheduler.add(every("*/5 * * * * *", context, "ratios", |c| async move { c.observe_ratios().await })?).await?;
    // each minute, so that an hour whose daemon died is finished by another one
    scheduler.add(every("30 * * * * *", context, "statistics", |c| async move { c.hourly().await })?).await?;
    scheduler.start().await?;
    Ok(scheduler)
}

/// A cron task that says whether it succeeded and never overlaps itself: the scheduler does not guard against that.
fn every<F, T>(cron: &str, context: &Context, name: &'static str, task: T) -> Result<Job, JobSchedulerError>
where
    T: Fn(Context) -> F + Send + Sync + 'static,
    F: Future<Output = bool> + Send + 'static,
{
    let (context, task, running) = (context.clone(), Arc::new(task), Arc::new(Mutex::new(())));
    Job::new_async(cron, move |_, _| {
        let (context, task, running) = (context.clone(), task.clone(), running.clone());
        Box::pin(async move {
            let Ok(_guard) = running.try_lock() else { return };
            if !context.shutdown.is_cancelled() && task(context).await {
                metrics::task_succeeded(name);
            }
        })
    })
}
