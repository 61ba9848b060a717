//! The listeners of a daemon: opened before Redis, served when all is ready.

use std::{io, net::SocketAddr, time::Duration};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Config,
    http::{self, Api, ListenerOptions, ListenerTls},
};

/// How often the files of the certificate are compared with what was read last.
const RELOAD_EVERY: Duration = Duration::from_secs(10);

/// The open listeners: the admin API, health and metrics, and the public listener.
pub struct Listeners {
    pub admin: TcpListener,
    /// `None` without `server.health_listen`. A runtime of its own serves it.
    pub health: Option<std::net::TcpListener>,
    pub public: TcpListener,
    /// The TLS of the admin listener; none for plain HTTP.
    pub tls: Option<ListenerTls>,
}

impl Listeners {
    /// Opens all listeners. Without `public.url` the address of the public one becomes the URL.
    ///
    /// # Errors
    /// A listener cannot be opened, or the certificate cannot be used. The error names the setting.
    pub async fn open(config: &mut Config) -> anyhow::Result<Self> {
        let tls = ListenerTls::new(&config.server)?;
        if config.server.is_plaintext_beyond_loopback() {
            tracing::warn!(
                address = %config.server.listen,
                "the admin listener has no TLS: tokens cross the network in clear text"
            );
        }
        let admin = listen("server.listen", config.server.listen).await?;
        let health = match config.server.health_listen {
            Some(address) => {
                let listener = listen("server.health_listen", address).await?;
                Some(listener.into_std().context("server.health_listen")?)
            }
            None => None,
        };
        let public = listen("public.listen", config.public.listen).await?;
        if config.public.url.is_empty() {
            config.public.url = format!("http://{}", public.local_addr()?);
        }
        Ok(Self { admin, health, public, tls })
    }

    /// Where health and metrics are served apart from the admin API, if they are.
    pub fn health_address(&self) -> io::Result<Option<SocketAddr>> {
        self.health.as_ref().map(std::net::TcpListener::local_addr).transpose()
    }

    /// Serves all listeners until `end` is cancelled. `tasks` waits for their requests.
    ///
    /// # Errors
    /// The thread of the health listener cannot be started.
    pub fn serve(
        self,
        api: Api,
        end: &CancellationToken,
        tasks: &TaskTracker,
    ) -> anyhow::Result<()> {
        let config = api.config.now();
        let options = |trusted_proxies: &[_], tls| ListenerOptions {
            server: config.server.clone(),
            trusted_proxies: trusted_proxies.to_vec(),
            tls,
        };
        if let Some(listener) = self.health {
            http::serve_health(listener, api.clone(), end.clone(), tasks.clone())
                .context("server.health_listen")?;
        }
        tasks.spawn(http::serve(
            self.public,
            http::PublicListener::new(api.feedback.clone()),
            options(&config.public.trusted_proxies, None),
            end.clone(),
            tasks.clone(),
        ));
        if let Some(tls) = self.tls.clone() {
            tasks.spawn(reload_certificates(tls, end.clone()));
        }
        tasks.spawn(http::serve(
            self.admin,
            http::router(api),
            options(&config.server.trusted_proxies, self.tls.clone()),
            end.clone(),
            tasks.clone(),
        ));
        Ok(())
    }
}

/// Reads the certificate again when its files change, until the end.
async fn reload_certificates(tls: ListenerTls, end: CancellationToken) {
    while end.run_until_cancelled(tokio::time::sleep(RELOAD_EVERY)).await.is_some() {
        let tls = tls.clone();
        let _ = tokio::task::spawn_blocking(move || tls.reload()).await;
    }
}

/// Opens a listener. `setting` names its address in the error.
pub async fn listen(setting: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{setting} {address}"))
}
