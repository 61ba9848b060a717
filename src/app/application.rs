//! One daemon: opens everything it needs, runs it, and ends it in order.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    installation::Installation,
    kept_audit_head,
    listeners::{Listeners, listen},
    open_store::open_store,
    own_token::own_token,
    reload::Reload,
    reload_parts::Reloaded,
    services::Services,
    watchdog::Watchdog,
    wiring::Parts,
};
use crate::{
    audit::{AuditHeads, OperationLog},
    config::Config,
    daemon::{Daemon, LifeSign},
    feedback::HitReceiver,
    http::{Api, MetricsPage, Operations, RequestLimits},
    identity::Keyring,
    live::Live,
    mail::{
        MessageMaker, StampKey,
        catcher::{Catcher, CatcherOptions},
        links::TokenKey,
        smtp::Relays,
    },
    metrics,
    queue::{Queue, WorkerHealth, Workers},
    redis_server::{EmbeddedRedis, StateDir},
    scheduler,
    store::{Durability, Redis, Stores, TokenStore},
    worker,
};

/// How often the samples of histograms are put into their buckets if nobody scrapes the metrics.
const UPKEEP: Duration = Duration::from_secs(5);
/// How long the end of the daemon waits until the replicas of Redis have all writes.
const DURABLE_LIMIT: Duration = Duration::from_secs(4);
/// How long the end of the daemon waits for open requests and background tasks.
const BACKGROUND_LIMIT: Duration = Duration::from_secs(2);

/// A daemon that is ready to run.
pub struct Application {
    services: Services,
    relays: Relays,
    listeners: Listeners,
    api: Api,
    workers: Workers,
    embedded: Option<EmbeddedRedis>,
    hits: HitReceiver,
    catcher: Option<(Catcher, SocketAddr)>,
    token: Option<String>,
    background: TaskTracker,
    end: CancellationToken,
    // keeps the state directory locked as long as the daemon lives
    state: Arc<StateDir>,
    reload: Reload,
}

impl Application {
    /// Opens everything a daemon needs. Nothing is sent before [`Application::run`].
    ///
    /// # Errors
    /// If a folder, a file, a listener, Redis, a key or a relay cannot be used, or if Redis
    /// promises too little. The error has one line.
    pub async fn build(mut config: Config, metrics: PrometheusHandle) -> anyhow::Result<Self> {
        let started = config.clone();
        let state = Arc::new(StateDir::lock(&config.server.state_dir)?);
        config.retention.make_archive_dir()?;
        let listeners = Listeners::open(&mut config).await?;
        let (end, background) = (CancellationToken::new(), TaskTracker::new());
        let catcher = start_catcher(&mut config, &background, &end).await?;
        let embedded = start_embedded_redis(&mut config, &state).await?;
        let redis = Redis::connect(&config.redis).await?;
        check_durability(&redis, config.redis.allow_data_loss).await?;
        let holds = open_store(&redis, &state, &config, embedded.as_ref()).await?;
        let mut keyring = Keyring::new(&config.auth)?;
        let token = own_token(&state, &mut keyring)?;
        let installation =
            Installation::open(&config.auth.installation_key_file, &state, &redis).await?;
        let messages = message_maker(&installation, &redis, &state).await?;
        let stores = Stores::new(redis.clone(), &installation.key);
        let heads = AuditHeads::new(stores.audits.clone(), kept_audit_head::read(&state)?);
        Box::pin(installation.seal_first(&stores, &heads, &state)).await?;
        let operation_log = OperationLog::new(stores.audits.clone(), heads.clone());
        let live = Live::new(config.clone());
        let config = Arc::new(config);
        let relays = Relays::new(&config)?;
        let parts = Parts {
            queue: Queue::new(redis.connection(), config.queue.clone()),
            stores: Stores { holds, ..stores },
            relays: relays.clone(),
            messages,
            rules: Live::new(config.tracking.rules()?),
            keyring: Live::new(keyring),
            health: WorkerHealth::default(),
            heads: heads.clone(),
            daemon: daemon_of(&state),
            config,
            live: live.clone(),
        };
        let (queue, keyring, health) =
            (parts.queue.clone(), parts.keyring.clone(), parts.health.clone());
        let reloaded = Reloaded::of(&parts, &state, listeners.tls.clone());
        let (services, hits) = Services::new(parts);
        let operations = Operations {
            queue: queue.clone(),
            health: health.clone(),
            log: operation_log.clone(),
            keyring,
            tokens: TokenStore::new(services.stores.redis.clone()),
            redis_state: services.journey.recover.pulse.state.clone(),
            metrics: MetricsPage::new(metrics, services.observation.ratios.ratios.clone()),
            limits: RequestLimits::new(&services.config.server),
        };
        let api = api_of(&services, operations, live.clone());
        let recorded = (operation_log, services.daemon.tracker.clone());
        let reload = Reload::new(started, live, reloaded.parts(&services), recorded);
        let Daemon { tracker, shutdown, .. } = services.daemon.clone();
        let workers = Workers { queue, shutdown, tracker, health };
        Ok(Self {
            services,
            relays,
            listeners,
            api,
            workers,
            embedded,
            hits,
            catcher,
            token,
            background,
            end,
            state,
            reload,
        })
    }

    /// Where the admin API listens.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listeners.admin.local_addr()
    }

    /// Where health and metrics are served apart from the admin API, if they are.
    pub fn health_address(&self) -> std::io::Result<Option<SocketAddr>> {
        self.listeners.health_address()
    }

    /// Where the public listener listens.
    pub fn public_address(&self) -> std::io::Result<SocketAddr> {
        self.listeners.public.local_addr()
    }

    /// The token in `admin.token`. A daemon without configured tokens and keys makes it at its
    /// first start; `None` if tokens or keys are configured.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The built-in mail catcher and its address, if no relay is configured.
    pub fn catcher(&self) -> Option<&(Catcher, SocketAddr)> {
        self.catcher.as_ref()
    }

    /// Takes new settings over while the daemon runs.
    pub fn reload(&self) -> Reload {
        self.reload.clone()
    }

    /// The services, for tests that call them directly.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Serves until `shutdown`, then drains for at most `server.drain_ms`.
    ///
    /// Returns false if tasks, such as open transactions, were left when the drain time was over.
    ///
    /// # Errors
    /// If the scheduler or the thread of the health listener cannot be started.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<bool> {
        let Services { stores, journey, feedback, observation, daemon, config, .. } = self.services;
        worker::start(&journey, config.send.workers, &self.workers);
        let heartbeat = journey.recover.heartbeat.clone();
        let end = self.end.clone();
        self.background.spawn(async move { heartbeat.keep(end).await });
        let watchdog = Watchdog {
            scheduler: LifeSign::default(),
            workers: self.workers.health.clone(),
            response: Duration::from_millis(config.redis.response_timeout_ms),
            shutdown: daemon.shutdown.clone(),
        };
        scheduler::start(scheduler::Tasks {
            journey,
            feedback: feedback.clone(),
            observation,
            daemon: daemon.clone(),
            sign: watchdog.scheduler.clone(),
        })
        .await?;
        let kept = self.api.deliveries.heads.kept.clone();
        self.background.spawn(kept_audit_head::keep(self.state.clone(), kept, self.end.clone()));
        self.background.spawn(watchdog.feed(self.end.clone()));
        self.background.spawn(upkeep(self.api.operations.metrics.handle.clone(), self.end.clone()));
        let (recorder, end) = (feedback.hits.clone(), self.end.clone());
        self.background.spawn(async move { recorder.record_hits(self.hits, end).await });
        self.listeners.serve(self.api, &self.end, &self.background)?;
        let (owner, state_dir) = (format!("{:016x}", daemon.owner), self.state.path().display());
        tracing::info!(owner, %state_dir, "ready");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);

        shutdown.await;
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        let drained = drain(&daemon, config.server.drain_ms).await;
        // after the drain no task repeats a write that Redis loses
        if tokio::time::timeout(DURABLE_LIMIT, stores.redis.await_durability()).await.is_err() {
            tracing::warn!("the replicas of Redis do not have all writes yet");
        }
        self.end.cancel();
        self.background.close();
        let _ = tokio::time::timeout(BACKGROUND_LIMIT, self.background.wait()).await;
        self.relays.close().await;
        if let Some(embedded) = self.embedded {
            // This heartbeat is the last write. The next start holds a store whose files were
            // changed much later than the last heartbeat.
            let _ = stores.holds.beat(config.send.silence()).await;
            embedded.stop().await;
        }
        tracing::info!(drained, "ended");
        Ok(drained)
    }
}

fn daemon_of(state: &StateDir) -> Daemon {
    Daemon {
        owner: state.owner(),
        dead_owners: state.predecessors().into(),
        tracker: TaskTracker::new(),
        shutdown: CancellationToken::new(),
    }
}

fn api_of(services: &Services, operations: Operations, config: Live<Config>) -> Api {
    Api {
        stores: services.stores.clone(),
        deliveries: services.deliveries.clone(),
        journey: services.journey.clone(),
        reports: services.reports.clone(),
        feedback: services.feedback.clone(),
        operations,
        daemon: services.daemon.clone(),
        config,
    }
}

/// Starts the built-in mail catcher if no relay is configured.
async fn start_catcher(
    config: &mut Config,
    background: &TaskTracker,
    end: &CancellationToken,
) -> anyhow::Result<Option<(Catcher, SocketAddr)>> {
    if !config.relays.is_empty() || !config.relay.host.is_empty() {
        return Ok(None);
    }
    let listener = listen("catcher.listen", config.catcher.listen).await?;
    let address = listener.local_addr()?;
    tracing::warn!(
        %address,
        "neither relay.host nor relays are set: the built-in mail catcher takes all mail \
         and delivers nothing"
    );
    config.relay.host = address.ip().to_string();
    config.relay.port = address.port();
    config.catcher.takes_mail = true;
    let catcher =
        Catcher::new(CatcherOptions { keep: config.catcher.keep, ..CatcherOptions::default() });
    background.spawn(catcher.clone().serve(listener, end.clone()));
    Ok(Some((catcher, address)))
}

/// Starts the embedded Redis if `redis.url` is empty.
async fn start_embedded_redis(
    config: &mut Config,
    state: &StateDir,
) -> anyhow::Result<Option<EmbeddedRedis>> {
    if !config.redis.url.is_empty() {
        return Ok(None);
    }
    let embedded = EmbeddedRedis::start(state, &config.redis.program).await?;
    config.redis.url = embedded.url();
    Ok(Some(embedded))
}

/// Logs what Redis promises about acknowledged writes, and refuses to start on too little.
async fn check_durability(redis: &Redis, allow_data_loss: bool) -> anyhow::Result<()> {
    let durability = redis.durability().await.context("redis.url")?;
    metrics::redis_durability(durability.word(), &Durability::WORDS);
    match &durability {
        Durability::Strict => tracing::info!("{durability}"),
        Durability::MayRollBack(_) => tracing::warn!("{durability}"),
        Durability::Weak(_) | Durability::Unknown(_) if allow_data_loss => {
            tracing::warn!("{durability} (redis.allow_data_loss)")
        }
        Durability::Weak(_) | Durability::Unknown(_) => {
            anyhow::bail!("redis.url: {durability}. Make it durable, or set redis.allow_data_loss");
        }
    }
    Ok(())
}

/// Makes the message maker with keys that all daemons share. A daemon that takes over a chunk
/// then makes the same messages.
async fn message_maker(
    installation: &Installation,
    redis: &Redis,
    state: &StateDir,
) -> anyhow::Result<MessageMaker> {
    let stamps = installation.shared_secret(redis, state, "message").await?;
    let tokens = installation.shared_secret(redis, state, "token").await?;
    Ok(MessageMaker {
        stamps: StampKey::new(&stamps)?,
        tokens: TokenKey::new(&tokens)?,
        templates: Default::default(),
    })
}

/// Asks all tasks to end and waits for them. False if some were left after `drain_ms`.
async fn drain(daemon: &Daemon, drain_ms: u64) -> bool {
    tracing::info!(drain_ms, "ending: open transactions are finished first");
    daemon.shutdown.cancel();
    daemon.tracker.close();
    let limit = Duration::from_millis(drain_ms);
    let drained = tokio::time::timeout(limit, daemon.tracker.wait()).await.is_ok();
    if !drained {
        tracing::warn!(
            left = daemon.tracker.len(),
            "the drain time is over: recipients of open transactions are in doubt"
        );
    }
    drained
}

async fn upkeep(metrics: PrometheusHandle, end: CancellationToken) {
    while end.run_until_cancelled(tokio::time::sleep(UPKEEP)).await.is_some() {
        metrics.run_upkeep();
    }
}
