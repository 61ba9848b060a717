//! A private redis-server for the queue's tests: stopped, frozen and started again at will.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use tempfile::TempDir;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use versand::{
    config::Config,
    queue::{JobError, Queue, QueueName, Received, WorkerHealth, Workers},
};

pub struct Redis {
    dir: TempDir,
    child: Child,
}

impl Redis {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let child = spawn(dir.path().to_path_buf());
        let redis = Self { dir, child };
        redis.answers().await;
        redis
    }

    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.dir.path().join("r.sock").display())
    }

    /// Kills it and starts it again on what its append-only file holds.
    pub async fn restart(&mut self, pause: Duration) {
        self.stop();
        tokio::time::sleep(pause).await;
        self.child = spawn(self.dir.path().to_path_buf());
        self.answers().await;
    }

    fn stop(&mut self) {
        self.child.kill().expect("kill redis-server");
        self.child.wait().expect("wait for redis-server");
    }

    async fn answers(&self) {
        eventually(Duration::from_secs(10), "redis-server answers", async || self.try_connect().await.is_some()).await;
    }

    async fn try_connect(&self) -> Option<ConnectionManager> {
        let config = ConnectionManagerConfig::new().set_response_timeout(Some(Duration::from_secs(10))).set_number_of_retries(1);
        let client = redis::Client::open(self.url()).ok()?;
        ConnectionManager::new_with_config(client, config).await.ok()
    }

    pub async fn connect(&self) -> ConnectionManager {
        self.try_connect().await.expect("connect to redis-server")
    }

    pub async fn queue(&self, settings: &str) -> Queue {
        let settings = format!("[queue]\nheartbeat_ms = 200\n{settings}");
        let config = Config::from_toml(&settings).expect("settings");
        Queue::new(self.connect().await, config.queue)
    }

    /// Runs a command that is written like on the command line of redis-cli.
    pub async fn run<T: redis::FromRedisValue>(&self, command: &str) -> T {
        let mut words = command.split(' ');
        let mut call = redis::cmd(words.next().expect("a command"));
        for word in words {
            call.arg(word);
        }
        call.query_async(&mut self.connect().await).await.expect(command)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(dir: PathBuf) -> Child {
    Command::new("redis-server")
        .args(["--port", "0", "--save", "", "--appendonly", "yes"])
        .args(["--appendfsync", "always", "--loglevel", "warning"])
        .arg("--unixsocket")
        .arg(dir.join("r.sock"))
        .arg("--dir")
        .arg(&dir)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is needed: apt-get install redis-server")
}

/// Waits until `condition` holds; fails saying `what` did not.
pub async fn eventually(limit: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + limit;
    while !condition().await {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Workers of one queue, as one daemon has them.
pub struct Daemon {
    pub workers: Workers,
}

impl Daemon {
    pub fn start<H, F>(queue: &Queue, name: QueueName, concurrency: usize, handler: H) -> Self
    where
        H: Fn(Received) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), JobError>> + Send + 'static,
    {
        let workers = Workers {
            queue: queue.clone(),
            shutdown: CancellationToken::new(),
            tracker: TaskTracker::new(),
            health: WorkerHealth::default(),
        };
        workers.start(name, concurrency, handler);
        Self { workers }
    }

    /// Stops and drains; false when it did not within `limit`.
    pub async fn stop(&self, limit: Duration) -> bool {
        self.workers.shutdown.cancel();
        self.workers.tracker.close();
        tokio::time::timeout(limit, self.workers.tracker.wait()).await.is_ok()
    }
}
