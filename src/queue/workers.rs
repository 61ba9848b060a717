//! The supervised apalis workers.

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
    enqueue::{Queue, QueueName, locked},
    job_run::{Handler, JobError, JobRun, ReceivedJob},
    orphan_recovery::now_s,
    worker_health::WorkerHealth,
};

/// First and longest pause before a worker that ended is started again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How often a worker that drains is looked at, and how many looks it has for acknowledging its last jobs.
const LOOK: Duration = Duration::from_millis(10);
const ACKNOWLEDGED_WITHIN: u32 = 50;

/// What the workers of a process share.
#[derive(Clone)]
pub struct Workers {
    pub queue: Queue,
    /// Cancelled: no job is fetched any more, those that run go on. The caller drains `tracker`, with a time limit.
    pub shutdown: CancellationToken,
    pub tracker: TaskTracker,
    pub health: WorkerHealth,
}

impl Workers {
    /// Runs `handler` on the jobs of a queue, `concurrency` at a time, until the shutdown. To be called once for a queue.
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
            let mut watched = locked(&self.queue.inner.watched);
            watched.push(name);
            watched.len() == 1
        };
        if first {
            self.tracker.spawn(self.queue.clone().watch(self.shutdown.clone()));
        }
        self.tracker.spawn(supervisor.supervise());
    }
}

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
        let mut pause = BACK_OFF.0;
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
                        // Best effort: what is left in its name is taken over by another worker in any case.
                        let _ = self.clear_up(&mut ended).await;
                        return;
                    }
                    health.restarted(self.name);
                    tracing::warn!(queue = self.name.as_str(), reason = %end, "queue worker ended, starting another");
                    if started.elapsed() > 2 * BACK_OFF.1 {
                        pause = BACK_OFF.0;
                    }
                }
                Err(e) => {
                    if shutdown.is_cancelled() {
                        return;
                    }
                    tracing::warn!(queue = self.name.as_str(), reason = %e, "queue not reachable");
                }
            }
            tokio::select! {
                () = sleep(pause) => pause = (pause * 2).min(BACK_OFF.1),
                () = shutdown.cancelled() => {}
            }
        }
    }

    /// Clears up after the worker that ended, if any; on an error it stays to be cleared up after.
    async fn clear_up(&self, ended: &mut Option<String>) -> Result<(), super::enqueue::QueueError> {
        if let Some(worker) = ended {
            self.queue.mend(self.name, worker).await?;
            *ended = None;
        }
        self.queue.promote(self.name).await
    }

    /// One worker from its start to its end; the answer says why it ended.
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
                    Err(_) => "it panicked".into(),
                },
                () = shutdown.cancelled(), if !stopping => {
                    stopping = true;
                    // not stopped yet: an apalis worker that is takes no acknowledgements before its last job has ended,
                    // and a fifth that waits to be taken (four for each job of a batch) would keep that job from ending
                    if context.pause().is_err() {
                        return "not started".into();
                    }
                }
                why = &mut drained, if stopping => return why.into(),
                // apalis beats no more once it drains, and others would take over the jobs that are still running.
                _ = beat.tick(), if stopping => self.beat(worker).await,
            }
        }
    }

    /// Stops a worker that was paused once its jobs have ended and are acknowledged. It answers only when that was not enough:
    /// a worker that was paused in the middle of a fetch takes no acknowledgements. The jobs are put back then, and a job
    /// that has ended may run again.
    async fn drained(&self, context: &WorkerContext) -> &'static str {
        while self.queue.inner.runs.any(self.name) {
            sleep(LOOK).await;
        }
        for _ in 0..ACKNOWLEDGED_WITHIN {
            sleep(LOOK).await;
            let held: redis::RedisResult<u64> = redis::cmd("SCARD")
                .arg(self.name.inflight_key(context.name()))
                .query_async(&mut self.queue.conn())
                .await;
            if matches!(held, Ok(0)) {
                break;
            }
        }
        let _ = context.stop();
        sleep(LOOK * ACKNOWLEDGED_WITHIN).await;
        "its last jobs could not be acknowledged"
    }

    /// The apalis worker, ready to run.
    fn apalis(&self, context: &WorkerContext) -> BoxFuture<'static, Result<(), WorkerError>> {
        let backend = RedisStorage::<Vec<u8>>::new(self.queue.conn())
            .with_config(self.config())
            .with_codec(Raw)
            .poll_with_strategy(self.queue.rings(self.name));
        let delivery = JobRun {
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
                deliver(delivery.clone(), received)
            })
            .run()
            .boxed()
    }

    /// Lists a worker where the sweep finds it: apalis keeps a key for each name for ever.
    async fn list_name(&self, worker: &str) -> redis::RedisResult<()> {
        redis::cmd("ZADD")
            .arg(self.name.key("names"))
            .arg(now_s())
            .arg(worker)
            .query_async(&mut self.queue.conn())
            .await
    }

    async fn beat(&self, worker: &str) {
        let beaten: redis::RedisResult<()> = redis::cmd("ZADD")
            .arg(self.name.key("workers"))
            .arg("XX")
            .arg(now_s())
            .arg(worker)
            .query_async(&mut self.queue.conn())
            .await;
        if let Err(e) = beaten {
            tracing::warn!(queue = self.name.as_str(), reason = %e, "heartbeat failed while draining");
        }
    }

    fn config(&self) -> apalis_redis::Config {
        let settings = &self.queue.inner.settings;
        // apalis counts whole seconds: with less than a heartbeat and two of them a live worker would be called dead.
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

async fn deliver(delivery: JobRun, received: ReceivedJob) -> Result<(), BoxDynError> {
    delivery.run(received).await.map_err(|e| match e {
        JobError::Retry(_) => Box::new(e) as BoxDynError,
        JobError::Abort(reason) => Box::new(AbortError::new(reason)),
    })
}

/// Payloads pass unread, so that a bad one is the step's to refuse; read by apalis it would end the worker.
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

/// Never used before: under a name that is used twice one worker would take over the other's jobs.
fn fresh_name() -> String {
    let mut bytes = [0u8; 8];
    // Without randomness the clock and the process tell them apart.
    if getrandom::fill(&mut bytes).is_err() {
        let nanos = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64);
        bytes = (nanos ^ (u64::from(std::process::id()) << 40)).to_be_bytes();
    }
    data_encoding::HEXLOWER.encode(&bytes)
}
