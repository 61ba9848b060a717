//! The only user of Redis commands besides the queue. Deliveries, slices of recipients, ledgers.

pub mod deliveries;
pub mod durability;
pub mod embedded;
pub mod endings;
pub mod figures;
pub mod keys;
pub mod ledgers;
pub mod offers;
pub mod slices;
pub mod state_dir;

use std::{
    sync::{Arc, RwLock},
    time::Duration,
};

use redis::{
    ErrorKind, ServerErrorKind,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

/// Why the store did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Redis did not answer or refused: try again later.
    #[error("Redis: {0}")]
    Unavailable(#[from] redis::RedisError),
    /// What was read is not what this program writes.
    #[error("damaged: {0}")]
    Damaged(String),
}

impl StoreError {
    /// Whether the same request may succeed later. It never does when a value is not of the kind that a script expects.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Damaged(_) => false,
            Self::Unavailable(error) => match error.kind() {
                ErrorKind::UnexpectedReturnType => false,
                ErrorKind::Server(ServerErrorKind::ResponseError) => !error.to_string().contains("script"),
                _ => error.code() != Some("WRONGTYPE"),
            },
        }
    }
}

/// Connections are multiplexed: clones share one.
#[derive(Clone)]
pub struct Store {
    conn: ConnectionManager,
    /// For what holds up a connection.
    beside: ConnectionManager,
    promised: Arc<RwLock<Option<durability::Durability>>>,
    scripts: Arc<ledgers::Scripts>,
}

impl Store {
    /// Whether a URL names a Redis; "" is the embedded one.
    ///
    /// # Errors
    /// Why it does not.
    pub fn check_url(url: &str) -> Result<(), StoreError> {
        if url.is_empty() { Ok(()) } else { Ok(redis::Client::open(url).map(drop)?) }
    }

    /// Connects; later the connection mends itself.
    ///
    /// # Errors
    /// If the URL is none or nobody answers.
    pub async fn connect(url: &str, response_timeout: Duration) -> Result<Self, StoreError> {
        let client = redis::Client::open(url)?;
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(response_timeout))
            .set_connection_timeout(Some(Duration::from_secs(5)))
            .set_min_delay(Duration::from_millis(20))
            .set_max_delay(Duration::from_secs(1));
        let conn = ConnectionManager::new_with_config(client.clone(), config.clone()).await?;
        let beside = ConnectionManager::new_with_config(client, config).await?;
        Ok(Self { conn, beside, promised: Arc::default(), scripts: Arc::default() })
    }

    /// The connection, for the queue.
    pub fn connection(&self) -> ConnectionManager {
        self.conn.clone()
    }

    /// A secret that all daemons on one Redis share: that of the first one, which brings its own.
    pub async fn shared_secret(&self, name: &str, own: [u8; 32]) -> Result<[u8; 32], StoreError> {
        let mut set = redis::cmd("SET");
        set.arg(keys::secret(name)).arg(&own[..]).arg("NX").arg("GET");
        let before: Option<Vec<u8>> = set.query_async(&mut self.conn.clone()).await?;
        before.map_or(Ok(own), |bytes| bytes.try_into().map_err(|_| damaged("a shared secret has not 32 bytes")))
    }

    /// Whether Redis answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        Ok(redis::cmd("PING").query_async(&mut self.conn.clone()).await?)
    }
}

fn damaged(what: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged(what.to_string())
}

/// JSON that cannot be read. serde's own text may quote an address, and this one is logged.
fn unreadable(error: serde_json::Error) -> StoreError {
    damaged(format!("{:?} error at line {} column {}", error.classify(), error.line(), error.column()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_that_cannot_be_read_is_not_quoted() {
        let error = serde_json::from_str::<u64>("\"ann@example.org\"").unwrap_err();
        assert!(error.to_string().contains("ann@"));
        assert_eq!(unreadable(error).to_string(), "damaged: Data error at line 1 column 17");
    }
}
