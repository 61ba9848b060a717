//! One line per cron task: which step it runs. Every task runs on every replica and may run twice.

use std::{future::Future, sync::Arc};

use tokio::sync::Mutex;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use crate::send::Context;

/// Starts the tasks; they end with the scheduler.
pub async fn start(context: &Context) -> Result<JobScheduler, JobSchedulerError> {
    let scheduler = JobScheduler::new().await?;
    scheduler.add(every("* * * * * *", context, |c| async move { c.reconcile_all().await })?).await?;
    scheduler.add(every("* * * * * *", context, |c| async move { c.release_due().await })?).await?;
    scheduler.add(every("* * * * * *", context, |c| async move { c.recur_all().await })?).await?;
    scheduler.add(every("*/2 * * * * *", context, |c| async move { c.observe().await })?).await?;
    scheduler.add(every("*/10 * * * * *", context, |c| async move { c.sweep_jobs().await })?).await?;
    // often: until a replica that came back is seen, a fail-over to it is not reckoned with
    scheduler.add(every("* * * * * *", context, |c| async move { c.observe_durability().await })?).await?;
    scheduler.add(every("0 * * * * *", context, |c| async move { c.heal().await })?).await?;
    let (first, pulse) = (context.clone(), context.clone());
    context.tracker.spawn(async move { pulse.pulse().await });
    context.tracker.spawn(async move { first.shutdown.run_until_cancelled(first.heal()).await });
    scheduler.start().await?;
    Ok(scheduler)
}

/// A cron task that never overlaps itself: the scheduler does not guard against that.
fn every<F, T>(cron: &str, context: &Context, task: T) -> Result<Job, JobSchedulerError>
where
    T: Fn(Context) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (context, task, running) = (context.clone(), Arc::new(task), Arc::new(Mutex::new(())));
    Job::new_async(cron, move |_, _| {
        let (context, task, running) = (context.clone(), task.clone(), running.clone());
        Box::pin(async move {
            let Ok(_guard) = running.try_lock() else { return };
            if !context.shutdown.is_cancelled() {
                task(context).await;
            }
        })
    })
}
