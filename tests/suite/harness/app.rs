//! The real application in this process, on a real Redis and with the real catcher as its relay.

use std::sync::OnceLock;

use metrics_exporter_prometheus::PrometheusHandle;
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};
use versand::{
    app::{Application, Reload, Services},
    config::Config,
    domain::{audience::Recipient, delivery::DeliveryId},
    mail::catcher::Catcher,
    store::audience::{SliceKind, ndjson},
};

use super::{client::Client, redis::RedisServer, share_installation_key};

/// One recorder serves the whole process, and therefore all tests.
pub fn metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| versand::metrics::install().unwrap()).clone()
}

pub struct App {
    pub client: Client,
    /// The catcher that took the mail, unless the settings name another relay.
    pub catcher: Option<Catcher>,
    pub services: Services,
    reload: Reload,
    config: Config,
    stop: oneshot::Sender<()>,
    running: JoinHandle<bool>,
    _state: TempDir,
}

/// The configuration of a daemon on `redis`. Free ports and a new state directory replace those in
/// the TOML. Leases are short unless the TOML sets `lease_ms`.
pub fn config(redis: &RedisServer, settings: &str) -> (Config, TempDir) {
    let state = tempfile::tempdir().unwrap();
    let mut config = Config::from_toml(settings).unwrap();
    config.server.listen = "127.0.0.1:0".parse().unwrap();
    config.server.state_dir = state.path().to_owned();
    config.catcher.listen = "127.0.0.1:0".parse().unwrap();
    config.public.listen = "127.0.0.1:0".parse().unwrap();
    config.redis.url = redis.url();
    config.redis.password_file = redis.settings().password_file;
    share_installation_key(state.path());
    if !settings.contains("lease_ms") {
        config.send.lease_ms = 1000;
    }
    (config, state)
}

/// A daemon on `redis` that does not run. The test takes its steps one by one. See [`config`] for
/// `settings`.
pub async fn idle(redis: &RedisServer, settings: &str) -> (Application, TempDir) {
    let (config, state) = config(redis, settings);
    (Application::build(config, metrics()).await.unwrap(), state)
}

/// Like [`idle`], in a state directory that a dead process had before.
pub async fn idle_after(
    predecessor: u64,
    redis: &RedisServer,
    settings: &str,
) -> (Application, TempDir) {
    let (config, state) = config(redis, settings);
    std::fs::write(state.path().join("owner"), format!("{predecessor:016x}\n")).unwrap();
    (Application::build(config, metrics()).await.unwrap(), state)
}

/// A token of the configuration. Its secret is its name.
pub fn token(name: &str, roles: &[&str]) -> String {
    use sha2::{Digest, Sha256};
    let sha256 = data_encoding::HEXLOWER.encode(&Sha256::digest(name));
    format!("{{ name = \"{name}\", sha256 = \"{sha256}\", roles = {roles:?} }}")
}

/// Ends the validity period of a delivery now: its first wave gets a release time long ago.
pub async fn validity_ends(services: &Services, id: &DeliveryId) {
    let delivery = services.deliveries.delivery(id).await.unwrap();
    let key = format!("versand:{{{id}}}:waves.{}:0", delivery.document.plan.unwrap().generation);
    let mut long_ago = redis::cmd("SETRANGE");
    long_ago.arg(key).arg(4).arg(&1u32.to_be_bytes()[..]);
    let _: usize = long_ago.query_async(&mut services.stores.redis.connection()).await.unwrap();
}

/// Moves the due time (Unix seconds) of the first `waves` waves of a prepared delivery, as if they
/// had been prepared for that time. The slices of the chunks are sealed again for that time.
pub async fn move_waves(services: &Services, id: &str, waves: usize, due: u32) {
    let id: DeliveryId = id.parse().unwrap();
    let plan = services.deliveries.delivery(&id).await.unwrap().document.plan.unwrap();
    let audiences = &services.stores.audiences;
    let kind = SliceKind::Chunks(plan.generation);
    let places = services.stores.schedules.places(&id, &plan).await.unwrap();
    let moved = (0..).zip(places).filter(|(_, place)| usize::from(place.wave) < waves);
    for (chunk, _) in moved {
        let recipients: Vec<Recipient> = audiences.slice(&id, kind, chunk).await.unwrap();
        let text = ndjson(&recipients).unwrap();
        audiences.write_slice_of(&id, kind, chunk, &text, due).await.unwrap();
    }
    let mut write = redis::pipe();
    for wave in 0..waves {
        let table = format!("versand:{{{id}}}:waves.{}:0", plan.generation);
        write.setrange(table, (16 * wave) as isize, &due.to_be_bytes()[..]).ignore();
    }
    write.zadd("versand:due", id.as_str(), 1).ignore();
    let () = write.query_async(&mut services.stores.redis.connection()).await.unwrap();
}

impl App {
    /// Starts a daemon on `redis`. See [`config`] for `settings`.
    pub async fn start(redis: &RedisServer, settings: &str) -> Self {
        let (config, state) = config(redis, settings);
        let application = Application::build(config.clone(), metrics()).await.unwrap();
        let reload = application.reload();
        let url = format!("http://{}", application.address().unwrap());
        let client = Client::new(url, application.token().unwrap_or_default().to_owned());
        let catcher = application.catcher().map(|(catcher, _)| catcher.clone());
        let services = application.services().clone();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(async move {
            let run = application.run(async {
                let _ = stopped.await;
            });
            run.await.unwrap()
        });
        Self { client, catcher, services, reload, config, stop, running, _state: state }
    }

    /// Reads the same settings and their files again, as SIGHUP does.
    pub fn reload(&self) {
        assert!(self.reload.reload(|| Ok(self.config.clone())));
    }

    /// Checks the ended deliveries, ends the daemon, and checks the queues. No ended delivery has a
    /// claim without a record, or figures that differ. No job waits or runs.
    pub async fn stop(self) {
        for id in self.services.stores.deliveries.delivery_ids(0, 1000).await.unwrap() {
            let delivery = self.services.stores.deliveries.delivery(&id).await.unwrap().unwrap();
            if let (Some(plan), true) = (
                &delivery.document.plan,
                delivery.state.has_ended() && delivery.document.cleaned.is_none(),
            ) {
                let recount = self
                    .services
                    .journey
                    .recover
                    .finishes
                    .recounts
                    .recount(&delivery, plan)
                    .await
                    .unwrap();
                assert_eq!(recount.counts.attempting, 0, "claims of {id} without a record");
                assert_eq!(
                    self.services
                        .journey
                        .recover
                        .finishes
                        .recounts
                        .difference(&delivery)
                        .await
                        .unwrap(),
                    Some(0),
                    "the conservation figures of {id} differ"
                );
            }
        }
        let _ = self.stop.send(());
        assert!(self.running.await.unwrap(), "the daemon did not drain in time");
        for depth in self.services.journey.preparations.jobs.queue.depths().await.unwrap() {
            assert_eq!(
                (depth.active, depth.in_flight, depth.scheduled),
                (0, 0, 0),
                "jobs remain on {:?}",
                depth.queue
            );
        }
    }
}
