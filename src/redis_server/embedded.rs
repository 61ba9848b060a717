//! The embedded Redis: a private redis-server that the daemon starts, adopts, restarts and stops.

use std::{
    fs::DirBuilder,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
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
    embedded_error::EmbeddedError,
    server::{Answer, RedisServer, ServerHome},
    server_log::ServerLog,
    state_dir::StateDir,
};

/// Longest path of a Unix socket in bytes: `sun_path` of unix(7), without the NUL at its end.
const SOCKET_PATH_LIMIT: usize = 107;
/// First pause before a server is started again. Each failure doubles the pause.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause before a server is started again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The private redis-server. If this is dropped without [`EmbeddedRedis::stop`], the server keeps
/// running and the next daemon adopts it.
pub struct EmbeddedRedis {
    socket: PathBuf,
    restarts: Arc<AtomicU64>,
    changed_ms: Option<u64>,
    stop: CancellationToken,
    /// Ends the watch when dropped, and leaves the server alone.
    _leave: DropGuard,
    tasks: TaskTracker,
}

impl EmbeddedRedis {
    /// Starts `program`, or adopts the server that a killed daemon left running. Waits until the
    /// server has read its append-only file.
    ///
    /// # Errors
    /// See [`EmbeddedError`].
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
        let log = ServerLog::at_its_end(home.log());
        let changed_ms = newest_change_ms(&home.dir.join("appendonlydir"));
        let server = home.adopt_or_launch().await?;
        // an adopted server has read its files before somebody could replace them
        let changed_ms = changed_ms.filter(|_| !server.is_adopted());
        let (stop, leave) = (CancellationToken::new(), CancellationToken::new());
        let (restarts, tasks) = (Arc::<AtomicU64>::default(), TaskTracker::new());
        let watched = CancellationToken::new();
        tasks.spawn(log.pass_on(watched.clone()));
        let watch = home.watch(server, stop.clone(), restarts.clone());
        // the log is passed on until the server has ended, or is left alone
        let watch = async move {
            let _watched = watched.drop_guard();
            watch.await;
        };
        tasks.spawn(leave.clone().run_until_cancelled_owned(watch));
        tasks.close();
        Ok(Self { socket, restarts, changed_ms, stop, _leave: leave.drop_guard(), tasks })
    }

    /// The URL of the server, for the redis crate.
    pub fn url(&self) -> String {
        socket_url(&self.socket)
    }

    /// When the files of the server were changed last before it was launched (Unix ms).
    ///
    /// A copy of older files counts as a change, whatever time the copy shows. `None` if the server
    /// was adopted, or had no files.
    pub fn changed_ms(&self) -> Option<u64> {
        self.changed_ms
    }

    /// How often the server ended and was started again.
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Stops the server after it has written everything to disk. Call this when nobody needs the
    /// server any more.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

/// The newest time at which the inode of a file in a directory was changed (Unix ms).
fn newest_change_ms(dir: &Path) -> Option<u64> {
    let files = std::fs::read_dir(dir).ok()?.flatten();
    let changed = files.filter_map(|file| {
        let meta = file.metadata().ok()?;
        u64::try_from(meta.ctime() * 1000 + meta.ctime_nsec() / 1_000_000).ok()
    });
    changed.max()
}

/// The URL of a server that listens on a Unix socket, for the redis crate.
pub fn socket_url(socket: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let mut url = "redis+unix://".to_owned();
    for byte in socket.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' | b'~' => {
                url.push(char::from(*byte));
            }
            other => url.push_str(&format!("%{other:02X}")),
        }
    }
    url
}

impl ServerHome {
    /// Starts the server again whenever it ends, until `stop` is cancelled.
    async fn watch(
        self,
        mut server: RedisServer,
        stop: CancellationToken,
        restarts: Arc<AtomicU64>,
    ) {
        let mut pause = FIRST_PAUSE;
        loop {
            let started = Instant::now();
            if stop.run_until_cancelled(server.ended()).await.is_none() {
                return server.stop().await;
            }
            if let Ok(Answer::Ready(connection)) = self.ask().await {
                // Only the connection ended; the server still answers.
                server.connection = connection;
                continue;
            }
            server.make_sure_it_ended().await;
            if started.elapsed() > 2 * LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
            server = loop {
                tracing::error!(
                    pause_ms = pause.as_millis() as u64,
                    "embedded Redis ended, starting it again"
                );
                if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                    return;
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
                match self.adopt_or_launch().await {
                    Ok(server) => break server,
                    Err(e) => tracing::error!(reason = %e, "embedded Redis did not start"),
                }
            };
            restarts.fetch_add(1, Ordering::Relaxed);
        }
    }
}
