//! A redis-server with queues on it, and daemons that work on them.

use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use versand::{
    config::Config,
    queue::{JobError, JobState, Queue, QueueName, ReceivedJob, WorkerHealth, Workers},
};

use crate::harness::{
    self, LIMIT,
    redis::{RedisServer, connect},
};

pub struct Redis {
    pub server: RedisServer,
}

impl Redis {
    pub fn start() -> Self {
        Self { server: RedisServer::start() }
    }

    /// Kills Redis and starts it again from its append-only file.
    pub async fn restart(&mut self, pause: Duration) {
        self.server.kill();
        tokio::time::sleep(pause).await;
        self.server.restart();
    }

    /// A connection of the daemon's user.
    pub async fn connect(&self) -> ConnectionManager {
        // The client tries to connect only once more, so that the workers see the outage.
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(LIMIT))
            .set_number_of_retries(1);
        let client = redis::Client::open(self.server.connection_info("versand")).expect("url");
        ConnectionManager::new_with_config(client, config).await.expect("connect to redis-server")
    }

    pub async fn queue(&self, settings: &str) -> Queue {
        let heartbeat = if settings.contains("heartbeat_ms") { "" } else { "heartbeat_ms = 200" };
        let settings = format!("[queue]\n{heartbeat}\n{settings}");
        let config = Config::from_toml(&settings).expect("settings");
        Queue::new(self.connect().await, config.queue)
    }

    /// Runs a command that is written as for redis-cli, as the default user.
    pub async fn run<T: redis::FromRedisValue>(&self, command: &str) -> T {
        let mut words = command.split(' ');
        let mut call = redis::cmd(words.next().expect("a command"));
        for word in words {
            call.arg(word);
        }
        call.query_async(&mut connect(&self.server.url()).await).await.expect(command)
    }
}

/// Waits until `condition` holds.
pub async fn eventually(limit: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    harness::eventually(what, limit, async || condition().await.then_some(())).await;
}

/// The workers of one queue, as one daemon has them.
pub struct Daemon {
    pub workers: Workers,
}

impl Daemon {
    pub fn start<H, F>(queue: &Queue, name: QueueName, concurrency: usize, handler: H) -> Self
    where
        H: Fn(ReceivedJob) -> F + Send + Sync + 'static,
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

    /// Stops and drains. Returns false if that took longer than `limit`.
    pub async fn stop(&self, limit: Duration) -> bool {
        self.workers.shutdown.cancel();
        self.workers.tracker.close();
        tokio::time::timeout(limit, self.workers.tracker.wait()).await.is_ok()
    }
}

pub const SOON: Duration = LIMIT;

pub async fn state(queue: &Queue, name: QueueName, id: &str) -> Option<JobState> {
    queue.status(name, id).await.expect("status").map(|s| s.state)
}

pub async fn reaches(queue: &Queue, name: QueueName, id: &str, wanted: JobState) {
    eventually(SOON, &format!("{id} is {wanted:?}"), async || {
        state(queue, name, id).await == Some(wanted)
    })
    .await;
}
