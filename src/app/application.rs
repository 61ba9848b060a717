//! The only wiring: settings in, a running daemon out.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::services::{Parts, Services};
use crate::{
    config::Config,
    daemon::Daemon,
    domain::{Principal, Role},
    feedback::HitArrivals,
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

/// Between two scrapes histograms keep every sample; so often they are put into their buckets without one.
const UPKEEP: Duration = Duration::from_secs(5);
/// How long the end waits until what was written cannot be undone, where Redis may go back in time.
const DURABLE_LIMIT: Duration = Duration::from_secs(4);

/// A daemon that is ready to run.
pub struct Application {
    services: Services,
    relays: Relays,
    listener: TcpListener,
    api: Api,
    workers: Workers,
    embedded: Option<EmbeddedRedis>,
    public: TcpListener,
    arrivals: HitArrivals,
    catcher: Option<(Catcher, SocketAddr)>,
    token: Option<String>,
    background: TaskTracker,
    end: CancellationToken,
    // held as long as the daemon lives
    state: StateDir,
}

impl Application {
    /// Opens everything a daemon needs. Nothing is sent before [`Application::run`].
    ///
    /// # Errors
    /// What cannot be opened, in one line.
    pub async fn build(mut config: Config, metrics: PrometheusHandle) -> anyhow::Result<Self> {
        let state = StateDir::lock(&config.server.state_dir)?;
        config.retention.make_archive_dir()?;
        if let Some((setting, days)) = config.retention.ends_opt_outs() {
            tracing::warn!(
                setting,
                days,
                "so soon after the end of a delivery its opt-out links end: 60 days at least are advised"
            );
        }
        let listener = TcpListener::bind(config.server.listen)
            .await
            .with_context(|| format!("server.listen {}", config.server.listen))?;
        let (end, background, tracker) =
            (CancellationToken::new(), TaskTracker::new(), TaskTracker::new());
        let public = TcpListener::bind(config.public.listen)
            .await
            .with_context(|| format!("public.listen {}", config.public.listen))?;
        if config.public.url.is_empty() {
            config.public.url = format!("http://{}", public.local_addr()?);
        }
        let catcher = catch(&mut config, &background, &end).await?;
        let embedded = match config.redis.url.is_empty() {
            true => Some(EmbeddedRedis::start(&state, &config.redis.program).await?),
            false => None,
        };
        if let Some(embedded) = &embedded {
            config.redis.url = embedded.url();
        }
        let redis = Redis::connect(&config.redis).await?;
        check_durability(&redis, config.redis.allow_data_loss).await?;
        let queue = Queue::new(redis.connection(), config.queue.clone());
        let mut keyring = Keyring::new(&config.auth)?;
        let token = own_token(&state, &mut keyring)?;
        let health = WorkerHealth::default();
        // of all daemons alike: whoever takes a chunk over makes the same messages
        let secret = redis.shared_secret("message", state.secret("message")?).await?;
        let token_secret = redis.shared_secret("token", state.secret("token")?).await?;
        let config = Arc::new(config);
        let relays = Relays::new(&config)?;
        let messages = MessageMaker {
            stamps: StampKey::new(&secret)?,
            tokens: TokenKey::new(&token_secret)?,
            templates: Default::default(),
        };
        let daemon = Daemon {
            owner: state.owner(),
            dead_owners: state.predecessors().into(),
            tracker: tracker.clone(),
            shutdown: CancellationToken::new(),
        };
        let keyring = Arc::new(keyring);
        let (services, arrivals) = Services::new(Parts {
            stores: Stores::new(redis),
            queue: queue.clone(),
            relays: relays.clone(),
            messages,
            rules: config.tracking.rules()?.into(),
            keyring: keyring.clone(),
            health: health.clone(),
            daemon: daemon.clone(),
            config,
        });
        let operations = Operations {
            queue: queue.clone(),
            health: health.clone(),
            keyring,
            ratios: services.observation.ratios.ratios.clone(),
            redis_state: services.journey.recover.pulse.state.clone(),
            metrics,
            failures: Default::default(),
        };
        let api = Api {
            stores: services.stores.clone(),
            deliveries: services.deliveries.clone(),
            journey: services.journey.clone(),
            reports: services.reports.clone(),
            feedback: services.feedback.clone(),
            operations,
            daemon: daemon.clone(),
            config: services.config.clone(),
        };
        let workers = Workers { queue, shutdown: daemon.shutdown, tracker, health };
        Ok(Self {
            services,
            relays,
            public,
            arrivals,
            listener,
            api,
            workers,
            embedded,
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

    /// The token of a daemon that was given no tokens and no keys: it was made at the first start, in `admin.token`.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The built-in mail catcher and its address, if there is no relay.
    pub fn catcher(&self) -> Option<&(Catcher, SocketAddr)> {
        self.catcher.as_ref()
    }

    /// The services, for who looks inside.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Serves until `shutdown`, then drains for at most `server.drain_ms`. False if that was not enough.
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
        let (server, router) = (config.server.clone(), http::router(self.api));
        let recording = feedback.hits.clone();
        let end = self.end.clone();
        self.background.spawn(async move { recording.record_hits(self.arrivals, end).await });
        let public = http::serve(
            self.public,
            http::PublicListener::new(feedback),
            server.clone(),
            self.end.clone(),
            self.background.clone(),
        );
        self.background.spawn(public);
        self.background.spawn(http::serve(
            self.listener,
            router,
            server,
            self.end.clone(),
            self.background.clone(),
        ));
        tracing::info!(owner = format!("{:016x}", daemon.owner), state_dir = %self.state.path().display(), "ready");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);

        shutdown.await;
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        tracing::info!(drain_ms = config.server.drain_ms, "ending: what is being sent is finished");
        daemon.shutdown.cancel();
        daemon.tracker.close();
        let drained = tokio::time::timeout(
            Duration::from_millis(config.server.drain_ms),
            daemon.tracker.wait(),
        )
        .await
        .is_ok();
        if !drained {
            let left = daemon.tracker.len();
            tracing::warn!(
                left,
                "the drain time is over: recipients of transactions still open are in doubt and will be shown as such"
            );
        }
        // who could put back what Redis forgets is gone then
        if tokio::time::timeout(DURABLE_LIMIT, stores.redis.await_durability()).await.is_err() {
            tracing::warn!("the replicas of Redis do not have everything yet");
        }
        self.end.cancel();
        self.background.close();
        let _ = tokio::time::timeout(Duration::from_secs(2), self.background.wait()).await;
        self.relays.close().await;
        if let Some(embedded) = self.embedded {
            embedded.stop().await;
        }
        tracing::info!(drained, "ended");
        Ok(drained)
    }
}

/// The guarantees stand on what Redis keeps: says what it promises, and refuses to start on less unless told otherwise.
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

/// Without a relay the built-in catcher takes the mail.
async fn catch(
    config: &mut Config,
    background: &TaskTracker,
    end: &CancellationToken,
) -> anyhow::Result<Option<(Catcher, SocketAddr)>> {
    if !config.relays.is_empty() || !config.relay.host.is_empty() {
        return Ok(None);
    }
    let listener = TcpListener::bind(config.catcher.listen)
        .await
        .with_context(|| format!("catcher.listen {}", config.catcher.listen))?;
    let address = listener.local_addr()?;
    tracing::warn!(%address, "neither relay.host nor relays are set: the built-in mail catcher takes all mail and delivers nothing");
    config.relay.host = address.ip().to_string();
    config.relay.port = address.port();
    config.catcher.takes_mail = true;
    let catcher =
        Catcher::new(CatcherOptions { keep: config.catcher.keep, ..CatcherOptions::default() });
    background.spawn(catcher.clone().serve(listener, end.clone()));
    Ok(Some((catcher, address)))
}

/// A daemon that nobody could log in to makes itself a token with all roles, readable by its own user only.
fn own_token(state: &StateDir, keyring: &mut Keyring) -> anyhow::Result<Option<String>> {
    if !keyring.is_empty() {
        return Ok(None);
    }
    let token = data_encoding::BASE32_DNSSEC.encode(&state.secret("admin")?);
    state.write_private("admin.token", format!("{token}\n").as_bytes())?;
    tracing::warn!(file = %state.path().join("admin.token").display(), "no tokens and no keys are configured: the token in this file has all roles");
    let roles = vec![
        Role::PrepareDeliveries,
        Role::StartDeliveries,
        Role::Administration,
        Role::Monitoring,
    ];
    keyring.add(&token, Principal { name: "admin".into(), roles });
    Ok(Some(token))
}

async fn upkeep(metrics: PrometheusHandle, end: CancellationToken) {
    while end.run_until_cancelled(tokio::time::sleep(UPKEEP)).await.is_some() {
        metrics.run_upkeep();
    }
}
