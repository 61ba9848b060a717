//! The catcher's server: accepts connections and serves each one (RFC 5321).

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::state::Catcher;

/// The most open connections. More are greeted with 421.
const MAX_CONNECTIONS: usize = 2000;

impl Catcher {
    /// Serves every connection of `listener` until `stop`. Then open connections end, too.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let mut sessions = JoinSet::new();
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            while sessions.try_join_next().is_some() {}
            match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    let catcher = self.clone();
                    sessions.spawn(async move { catcher.session(stream).await });
                }
                // There may be no free file descriptors. The listener itself still works.
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
        sessions.shutdown().await;
    }

    /// Serves one connection over any stream, to its end.
    pub async fn session<S: AsyncRead + AsyncWrite + Unpin + Send>(&self, stream: S) {
        let open = self.open();
        super::session::run(self, stream, open.before >= MAX_CONNECTIONS).await;
    }
}
