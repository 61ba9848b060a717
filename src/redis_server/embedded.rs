//! The embedded default: a private redis-server, started, adopted, watched and stopped by the daemon.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{
    server::{Greeting, RedisServer, ServerHome},
    state_dir::StateDir,
};

/// Longest path of a Unix socket, in bytes (sun_path of unix(7), less its end).
const SOCKET_PATH_LIMIT: usize = 107;
/// First and longest pause before a server that ended is started again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error(
        "redis.program: {program} was not found; install it (Debian, Ubuntu: apt-get install redis-server) or set redis.url"
    )]
    Missing { program: String },
    #[error(
        "server.state_dir: the Redis socket {path} would have {bytes} bytes and a Unix socket's path ends at 107; choose a shorter one"
    )]
    PathTooLong { path: PathBuf, bytes: usize },
    #[error("the redis-server at {path} takes connections but does not answer; end it first")]
    Stuck { path: PathBuf },
    #[error("redis-server ended at once ({status}): {reason}")]
    Ended { status: ExitStatus, reason: String },
    #[error("embedded Redis in {path}: {source}")]
    Unusable { path: PathBuf, source: io::Error },
}

/// The private redis-server. Dropped without [`EmbeddedRedis::stop`], it is left running for the next daemon to adopt.
pub struct EmbeddedRedis {
    socket: PathBuf,
    restarts: Arc<AtomicU64>,
    stop: CancellationToken,
    _leave: DropGuard,
    tasks: TaskTracker,
}

impl EmbeddedRedis {
    /// Starts `program`, or adopts the server that a daemon which was killed has left, and waits until it has read its log.
    pub async fn start(state: &StateDir, program: &str) -> Result<Self, EmbeddedError> {
        let dir = state.path().join("redis");
        let unusable = |source| EmbeddedError::Unusable { path: dir.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(unusable)?;
        let dir = dir.canonicalize().map_err(unusable)?;
        let socket = dir.join("redis.sock");
        let bytes = socket.as_os_str().len();
        if bytes > SOCKET_PATH_LIMIT {
            return Err(EmbeddedError::PathTooLong { path: socket, bytes });
        }
        let home = ServerHome { dir, socket: socket.clone(), program: program.to_owned() };
        let server = home.adopt_or_launch().await?;
        let (stop, leave) = (CancellationToken::new(), CancellationToken::new());
        let (restarts, tasks) = (Arc::<AtomicU64>::default(), TaskTracker::new());
        tasks.spawn(leave.clone().run_until_cancelled_owned(home.watch(
            server,
            stop.clone(),
            restarts.clone(),
        )));
        tasks.close();
        Ok(Self { socket, restarts, stop, _leave: leave.drop_guard(), tasks })
    }

    /// For the redis crate.
    pub fn url(&self) -> String {
        use std::os::unix::ffi::OsStrExt;
        let mut url = "redis+unix://".to_owned();
        for byte in self.socket.as_os_str().as_bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' | b'~' => {
                    url.push(char::from(*byte));
                }
                other => url.push_str(&format!("%{other:02X}")),
            }
        }
        url
    }

    /// How often it ended and was started again.
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Ends the server once everything it holds is on disk; to be called when nobody needs it any more.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

impl ServerHome {
    /// Starts the server again whenever it ends, until it is to be stopped.
    async fn watch(
        self,
        mut server: RedisServer,
        stop: CancellationToken,
        restarts: Arc<AtomicU64>,
    ) {
        let mut pause = BACK_OFF.0;
        loop {
            let started = Instant::now();
            if stop.run_until_cancelled(server.ended()).await.is_none() {
                return server.stop().await;
            }
            if let Ok(Greeting::Ready(connection)) = self.greet().await {
                // Only the connection ended.
                server.connection = connection;
                continue;
            }
            server.gone().await;
            if started.elapsed() > 2 * BACK_OFF.1 {
                pause = BACK_OFF.0;
            }
            server = loop {
                tracing::error!(
                    pause_ms = pause.as_millis() as u64,
                    "embedded Redis ended, starting it again"
                );
                if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                    return;
                }
                pause = (pause * 2).min(BACK_OFF.1);
                match self.adopt_or_launch().await {
                    Ok(server) => break server,
                    Err(e) => tracing::error!(reason = %e, "embedded Redis did not start"),
                }
            };
            restarts.fetch_add(1, Ordering::Relaxed);
        }
    }
}
