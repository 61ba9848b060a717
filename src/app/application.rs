//! One daemon: opens everything it needs, runs it, and ends it in order.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{installation::Installation, services::Services, wiring::Parts};
use crate::{
    config::Config,
    daemon::Daemon,
    domain::{Principal, Role},
    feedback::HitReceiver,
    http::{self, Api, Operations},
    identity::Keyring,
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
    store::{Durability, Redis, Stores},
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
    listener: TcpListener,
    api: Api,
    workers: Workers,
    embedded: Option<EmbeddedRedis>,
    public: TcpListener,
    hits: HitReceiver,
    catcher: Option<(Catcher, SocketAddr)>,
    token: Option<String>,
    background: TaskTracker,
    end: CancellationToken,
    // keeps the state directory locked as long as the daemon lives
    state: StateDir,
}

impl Application {
    /// Opens everything a daemon needs. Nothing is sent before [`Application::run`].
    ///
    /// # Errors
    /// If a folder, a listener, Redis, a key or a relay cannot be opened. The error has one line.
    pub async fn build(mut config: Config, metrics: PrometheusHandle) -> anyhow::Result<Self> {
        let state = StateDir::lock(&config.server.state_dir)?;
        config.retention.make_archive_dir()?;
        warn_of_short_opt_outs(&config);
        let listener = listen("server.listen", config.server.listen).await?;
        let (end, background) = (CancellationToken::new(), TaskTracker::new());
        let public = listen_publicly(&mut config).await?;
        let catcher = start_catcher(&mut config, &background, &end).await?;
        let embedded = start_embedded_redis(&mut config, &state).await?;
        let redis = Redis::connect(&config.redis).await?;
        check_durability(&redis, config.redis.allow_data_loss).await?;
        let mut keyring = Keyring::new(&config.auth)?;
        let token = own_token(&state, &mut keyring)?;
        let installation =
            Installation::open(&config.auth.installation_key_file, &state, &redis).await?;
        let messages = message_maker(&installation, &redis, &state).await?;
        let stores = Stores::new(redis.clone(), &installation.key);
        Box::pin(installation.seal_first(&stores, &state)).await?;
        let config = Arc::new(config);
        let relays = Relays::new(&config)?;
        let parts = Parts {
            queue: Queue::new(redis.connection(), config.queue.clone()),
            stores,
            relays: relays.clone(),
            messages,
            rules: config.tracking.rules()?.into(),
            keyring: Arc::new(keyring),
            health: WorkerHealth::default(),
            daemon: daemon_of(&state),
            config,
        };
        let (queue, keyring, health) =
            (parts.queue.clone(), parts.keyring.clone(), parts.health.clone());
        let (services, hits) = Services::new(parts);
        let operations = Operations {
            queue: queue.clone(),
            health: health.clone(),
            keyring,
            ratios: services.observation.ratios.ratios.clone(),
            redis_state: services.journey.recover.pulse.state.clone(),
            metrics,
            failures: Default::default(),
        };
        let api = api_of(&services, operations);
        let Daemon { tracker, shutdown, .. } = services.daemon.clone();
        let workers = Workers { queue, shutdown, tracker, health };
        Ok(Self {
            services,
            relays,
            listener,
            api,
            workers,
            embedded,
            public,
            hits,
            catcher,
            token,
            background,
            end,
            state,
        })
    }

    /// Where the admin API listens.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where the public listener listens.
    pub fn public_address(&self) -> std::io::Result<SocketAddr> {
        self.public.local_addr()
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

    /// The services, for tests that call them directly.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Serves until `shutdown`, then drains for at most `server.drain_ms`.
    ///
    /// Returns false if open transactions were left when the drain time was over.
    ///
    /// # Errors
    /// If the scheduler cannot be started.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<bool> {
        let Services { stores, journey, feedback, observation, daemon, config, .. } = self.services;
        worker::start(&journey, config.send.workers, &self.workers);
        scheduler::start(scheduler::Tasks {
            journey,
            feedback: feedback.clone(),
            observation,
            daemon: daemon.clone(),
        })
        .await?;
        self.background.spawn(upkeep(self.api.operations.metrics.clone(), self.end.clone()));
        let (recorder, end) = (feedback.hits.clone(), self.end.clone());
        self.background.spawn(async move { recorder.record_hits(self.hits, end).await });
        self.background.spawn(http::serve(
            self.public,
            http::PublicListener::new(feedback),
            config.server.clone(),
            self.end.clone(),
            self.background.clone(),
        ));
        self.background.spawn(http::serve(
            self.listener,
            http::router(self.api),
            config.server.clone(),
            self.end.clone(),
            self.background.clone(),
        ));
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

fn api_of(services: &Services, operations: Operations) -> Api {
    Api {
        stores: services.stores.clone(),
        deliveries: services.deliveries.clone(),
        journey: services.journey.clone(),
        reports: services.reports.clone(),
        feedback: services.feedback.clone(),
        operations,
        daemon: services.daemon.clone(),
        config: services.config.clone(),
    }
}

/// Warns if the retention ends opt-out links soon after the end of a delivery.
fn warn_of_short_opt_outs(config: &Config) {
    if let Some((setting, days)) = config.retention.ends_opt_outs() {
        tracing::warn!(
            setting,
            days,
            "opt-out links stop working this many days after the end of a delivery: \
             keep at least 60 days"
        );
    }
}

/// Opens a listener. `setting` names its address in the error.
async fn listen(setting: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{setting} {address}"))
}

/// Opens the public listener. Without `public.url` the address of the listener becomes the URL.
async fn listen_publicly(config: &mut Config) -> anyhow::Result<TcpListener> {
    let listener = listen("public.listen", config.public.listen).await?;
    if config.public.url.is_empty() {
        config.public.url = format!("http://{}", listener.local_addr()?);
    }
    Ok(listener)
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

/// Makes a token with all roles if no token and no key is configured. Only the user of the
/// daemon can read its file.
fn own_token(state: &StateDir, keyring: &mut Keyring) -> anyhow::Result<Option<String>> {
    if !keyring.is_empty() {
        return Ok(None);
    }
    let token = data_encoding::BASE32_DNSSEC.encode(&state.secret("admin")?);
    state.write_private("admin.token", format!("{token}\n").as_bytes())?;
    tracing::warn!(
        file = %state.path().join("admin.token").display(),
        "no tokens and no keys are configured: the token in this file has all roles"
    );
    let roles = vec![
        Role::PrepareDeliveries,
        Role::StartDeliveries,
        Role::Administration,
        Role::Monitoring,
    ];
    keyring.add(&token, Principal { name: "admin".into(), roles });
    Ok(Some(token))
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
