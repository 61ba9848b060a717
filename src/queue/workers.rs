//! The apalis workers of this process, each with a supervisor that starts it again.

use std::{convert::Infallible, panic::AssertUnwindSafe, pin::pin, sync::Arc, time::Duration};

use apalis::prelude::{
    Attempt, BackendExt, BoxDynError, Codec, Event, EventListenerExt, TaskId, WorkerBuilder,
    WorkerBuilderExt, WorkerContext,
};
use apalis_core::error::{AbortError, WorkerError};
use apalis_redis::RedisStorage;
use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    enqueue::Queue,
    job_run::JobRun,
    lock::locked,
    queue_error::QueueError,
    queue_name::QueueName,
    received_job::{Handler, JobError, ReceivedJob},
    worker_health::WorkerHealth,
};
use crate::clock::unix_now;

/// The first pause before a worker that ended is started again. Each further pause is doubled.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause before a worker is started again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A worker that ends again after this pause has met more than an outage of Redis: during an outage
/// no worker is started.
const OUTAGE_PAUSE: Duration = Duration::from_millis(500);
/// The end of a worker that panicked.
const PANICKED: &str = "it panicked";

/// How often a worker that drains is checked.
const DRAIN_POLL: Duration = Duration::from_millis(10);
/// The checks within which a draining worker must have acknowledged its last jobs.
const ACKNOWLEDGED_WITHIN: u32 = 50;

/// Starts the workers of this process, and holds what they share.
#[derive(Clone)]
pub struct Workers {
    /// The queues to work on.
    pub queue: Queue,
    /// After its cancellation, no further job is fetched. Jobs that run go on; the caller drains
    /// `tracker` with a time limit.
    pub shutdown: CancellationToken,
    /// Holds the tasks of the workers and of the jobs.
    pub tracker: TaskTracker,
    /// The record of which workers live.
    pub health: WorkerHealth,
}

impl Workers {
    /// Runs `handler` on the jobs of a queue, at most `concurrency` at a time, until the shutdown.
    ///
    /// Call this once for each queue.
    pub fn start<H, F>(&self, name: QueueName, concurrency: usize, handler: H)
    where
        H: Fn(ReceivedJob) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), JobError>> + Send + 'static,
    {
        let supervisor = Supervisor {
            queue: self.queue.clone(),
            name,
            concurrency,
            handler: Arc::new(move |received| handler(received).boxed()),
            workers: self.clone(),
        };
        self.health.expect(name, supervisor.config().orphaned_duration());
        let first = {
            let mut polled = locked(&self.queue.inner.polled);
            polled.push(name);
            polled.len() == 1
        };
        if first {
            self.tracker.spawn(self.queue.clone().poll(self.shutdown.clone()));
        }
        self.tracker.spawn(supervisor.supervise());
    }
}

/// Keeps one worker of a queue running.
struct Supervisor {
    queue: Queue,
    name: QueueName,
    concurrency: usize,
    handler: Handler,
    workers: Workers,
}

impl Supervisor {
    async fn supervise(self) {
        let shutdown = &self.workers.shutdown;
        let health = &self.workers.health;
        let mut ended = None;
        let mut pause = FIRST_PAUSE;
        loop {
            match self.clear_up(&mut ended).await {
                Ok(()) if shutdown.is_cancelled() => return,
                Ok(()) => {
                    let started = Instant::now();
                    let worker = format!("{}-{}", self.name.as_str(), fresh_name());
                    let end = self.work(&worker).await;
                    ended = Some(worker);
                    health.ended(self.name);
                    if shutdown.is_cancelled() {
                        // Best effort: another worker takes over what remains.
                        let _ = self.clear_up(&mut ended).await;
                        return;
                    }
                    health.restarted(self.name);
                    let queue = self.name.as_str();
                    if end == PANICKED || pause > OUTAGE_PAUSE {
                        tracing::error!(queue, reason = %end, "queue worker ended, starting another");
                    } else {
                        // most likely an outage of Redis, which is logged once for all
                        tracing::debug!(queue, reason = %end, "queue worker ended, starting another");
                    }
                    if started.elapsed() > 2 * LONGEST_PAUSE {
                        pause = FIRST_PAUSE;
                    }
                }
                Err(e) => {
                    if shutdown.is_cancelled() {
                        return;
                    }
                    health.tried(self.name);
                    let queue = self.name.as_str();
                    if e.lasts() {
                        tracing::warn!(queue, reason = %e, "queue not usable");
                    } else {
                        tracing::debug!(queue, reason = %e, "queue not reachable");
                    }
                }
            }
            tokio::select! {
                () = sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                () = shutdown.cancelled() => {}
            }
        }
    }

    /// Clears up after the worker that ended, if there is one, and moves due retries to the queue.
    ///
    /// After an error `ended` still names the worker, so that the next call tries again.
    async fn clear_up(&self, ended: &mut Option<String>) -> Result<(), QueueError> {
        if let Some(worker) = ended {
            self.queue.recover_orphans(self.name, worker).await?;
            *ended = None;
        }
        self.queue.promote(self.name).await
    }

    /// Runs one worker from its start to its end. Returns why the worker ended.
    async fn work(&self, worker: &str) -> String {
        if let Err(e) = self.list_name(worker).await {
            return e.to_string();
        }
        let context = WorkerContext::new(worker);
        let mut run = AssertUnwindSafe(self.apalis(&context)).catch_unwind();
        let shutdown = &self.workers.shutdown;
        let mut stopping = false;
        let mut drained = pin!(self.drained(&context));
        let mut beat = interval(self.config().heartbeat_interval);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                end = &mut run => return match end {
                    Ok(Ok(())) => "it stopped".into(),
                    Ok(Err(e)) => e.to_string(),
                    Err(_) => PANICKED.into(),
                },
                () = shutdown.cancelled(), if !stopping => {
                    stopping = true;
                    // The worker is paused, not stopped. A stopped apalis worker takes no
                    // acknowledgements before its last job has ended. Its channel holds four
                    // acknowledgements for each job of a batch. A fifth would wait, and its job
                    // could not end.
                    if context.pause().is_err() {
                        return "not started".into();
                    }
                }
                why = &mut drained, if stopping => return why.into(),
                // apalis sends no heartbeats while it drains. Without them other daemons would take
                // over the jobs that are still running.
                _ = beat.tick(), if stopping => self.beat(worker).await,
            }
        }
    }

    /// Stops a paused worker once its jobs have ended and are acknowledged.
    ///
    /// This future ends only if the worker does not stop: a worker that was paused during a fetch
    /// takes no acknowledgements. Its jobs are then put back, and a job that has ended may run
    /// again.
    async fn drained(&self, context: &WorkerContext) -> &'static str {
        while self.queue.inner.running.any(self.name) {
            sleep(DRAIN_POLL).await;
        }
        for _ in 0..ACKNOWLEDGED_WITHIN {
            sleep(DRAIN_POLL).await;
            let in_flight: redis::RedisResult<u64> = redis::cmd("SCARD")
                .arg(self.name.inflight_key(context.name()))
                .query_async(&mut self.queue.conn())
                .await;
            if matches!(in_flight, Ok(0)) {
                break;
            }
        }
        let _ = context.stop();
        sleep(DRAIN_POLL * ACKNOWLEDGED_WITHIN).await;
        "its last jobs could not be acknowledged"
    }

    /// The apalis worker, ready to run.
    fn apalis(&self, context: &WorkerContext) -> BoxFuture<'static, Result<(), WorkerError>> {
        let backend = RedisStorage::<Vec<u8>>::new(self.queue.conn())
            .with_config(self.config())
            .with_codec(Raw)
            .poll_with_strategy(self.queue.wake_ups(self.name));
        let jobs = JobRun {
            queue: self.queue.clone(),
            name: self.name,
            worker: context.name().to_owned(),
            tracker: self.workers.tracker.clone(),
            handler: self.handler.clone(),
        };
        let (health, name) = (self.workers.health.clone(), self.name);
        WorkerBuilder::new(context.clone())
            .backend(backend)
            .catch_panic()
            .concurrency(self.concurrency)
            .on_event(move |_, event| {
                if matches!(event, Event::HeartBeat) {
                    health.beat(name);
                }
            })
            .build(move |payload: Vec<u8>, id: TaskId, attempt: Attempt| {
                let received = ReceivedJob {
                    id: id.to_string(),
                    payload,
                    attempt: u32::try_from(attempt.current()).unwrap_or(u32::MAX),
                };
                run_job(jobs.clone(), received)
            })
            .run()
            .boxed()
    }

    /// Lists the worker's name. The sweep later removes the keys that apalis keeps for each name.
    async fn list_name(&self, worker: &str) -> redis::RedisResult<()> {
        redis::cmd("ZADD")
            .arg(self.name.key("names"))
            .arg(unix_now())
            .arg(worker)
            .query_async(&mut self.queue.conn())
            .await
    }

    /// Renews the heartbeat of a worker that drains.
    async fn beat(&self, worker: &str) {
        let beaten: redis::RedisResult<()> = redis::cmd("ZADD")
            .arg(self.name.key("workers"))
            .arg("XX")
            .arg(unix_now())
            .arg(worker)
            .query_async(&mut self.queue.conn())
            .await;
        if let Err(e) = beaten {
            tracing::warn!(
                queue = self.name.as_str(),
                reason = %e,
                "heartbeat failed while draining"
            );
        }
    }

    fn config(&self) -> apalis_redis::Config {
        let settings = &self.queue.inner.settings;
        // apalis counts whole seconds. If the limit were less than two seconds longer than the
        // interval of the heartbeats, apalis would call a live worker dead.
        let least = (settings.heartbeat_ms + 2000).div_ceil(settings.heartbeat_ms);
        let missed = settings.missed_heartbeats.max(usize::try_from(least).unwrap_or(usize::MAX));
        apalis_redis::Config::default()
            .queue(self.name.redis_name())
            .batch_size(1)
            .heartbeat_interval(Duration::from_millis(settings.heartbeat_ms))
            .missed_heartbeats(missed)
            .lock_tasks(false)
            .emit_events(false)
            .persist_results(true)
            .idempotency_ttl(Some(Duration::from_secs(86_400)))
    }
}

async fn run_job(jobs: JobRun, received: ReceivedJob) -> Result<(), BoxDynError> {
    jobs.run(received).await.map_err(|e| match e {
        JobError::Retry(_) => Box::new(e) as BoxDynError,
        JobError::Abort(reason) => Box::new(AbortError::new(reason)),
    })
}

/// Passes payloads on unread. The handler refuses a bad one; apalis would end the worker.
#[derive(Debug, Clone)]
struct Raw;

impl Codec<Vec<u8>> for Raw {
    type Error = Infallible;
    type Compact = Vec<u8>;

    fn encode(&self, payload: &Vec<u8>) -> Result<Vec<u8>, Infallible> {
        Ok(payload.clone())
    }

    fn decode(&self, payload: &Vec<u8>) -> Result<Vec<u8>, Infallible> {
        Ok(payload.clone())
    }
}

/// A name that was never used before. Two workers of one name would take over each other's jobs.
fn fresh_name() -> String {
    let mut bytes = [0u8; 8];
    // Without randomness the clock and the process id make the name unique.
    if getrandom::fill(&mut bytes).is_err() {
        let nanos = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64);
        bytes = (nanos ^ (u64::from(std::process::id()) << 40)).to_be_bytes();
    }
    data_encoding::HEXLOWER.encode(&bytes)
}
