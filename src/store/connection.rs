//! The only user of Redis commands besides the queue. Deliveries, slices of recipients, ledgers.

use std::{
    sync::{Arc, RwLock},
    time::Duration,
};

use redis::{
    ErrorKind, IntoConnectionInfo, ServerErrorKind,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

use crate::config::{self, ConfigError};

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
            Self::Unavailable(error) => may_pass(error),
        }
    }

    /// Whether Redis answered, if only to refuse.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Unavailable(error) if error.code().is_some())
    }
}

/// [`StoreError::may_pass`] of what Redis said. A full memory or disk, a fail-over and a long script pass; so does what a
/// script hands on of them, with its own name behind it.
pub fn may_pass(error: &redis::RedisError) -> bool {
    match error.kind() {
        ErrorKind::UnexpectedReturnType => false,
        ErrorKind::Server(ServerErrorKind::ResponseError) => !error.to_string().contains("script"),
        _ => error.code() != Some("WRONGTYPE"),
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{0}")]
    Settings(#[from] ConfigError),
    #[error("redis.url: {0}")]
    Unavailable(#[from] redis::RedisError),
}

/// The text of an error never repeats the URL: it may hold what it should not.
fn client(settings: &config::RedisSettings) -> Result<redis::Client, ConfigError> {
    let refuse =
        |setting: &str, reason: String| ConfigError { setting: format!("redis.{setting}"), reason };
    let named =
        settings.url.as_str().into_connection_info().map_err(|e| refuse("url", e.to_string()))?;
    let redis = named.redis_settings().clone();
    if redis.password().is_some() {
        return Err(refuse(
            "url",
            "must not hold a password: put it into a file and name that as redis.password_file"
                .into(),
        ));
    }
    let named = match settings.password_file.as_os_str().is_empty() {
        true => named,
        false => {
            let password =
                config::secret(&settings.password_file).map_err(|e| refuse("password_file", e))?;
            named.set_redis_settings(redis.set_password(password))
        }
    };
    redis::Client::open(named).map_err(|e| refuse("url", e.to_string()))
}

/// Connections are multiplexed: clones share one.
#[derive(Clone)]
pub struct Redis {
    pub(crate) conn: ConnectionManager,
    /// For what holds up a connection.
    pub(super) beside: ConnectionManager,
    pub(super) promised: Arc<RwLock<Option<super::durability::Durability>>>,
}

impl Redis {
    /// Whether the settings name a Redis, and a password that can be read; the URL "" is the embedded one.
    ///
    /// # Errors
    /// Which setting cannot be used, and why.
    pub fn check(settings: &config::RedisSettings) -> Result<(), ConfigError> {
        if settings.url.is_empty() { Ok(()) } else { client(settings).map(drop) }
    }

    /// Connects; later the connection mends itself.
    ///
    /// # Errors
    /// If the settings name no Redis, or nobody answers.
    pub async fn connect(settings: &config::RedisSettings) -> Result<Self, ConnectError> {
        let client = client(settings)?;
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(Duration::from_millis(settings.response_timeout_ms)))
            .set_connection_timeout(Some(Duration::from_secs(5)))
            .set_min_delay(Duration::from_millis(20))
            .set_max_delay(Duration::from_secs(1));
        let conn = ConnectionManager::new_with_config(client.clone(), config.clone()).await?;
        let beside = ConnectionManager::new_with_config(client, config).await?;
        Ok(Self { conn, beside, promised: Arc::default() })
    }

    /// Runs commands whose answers do not matter. Without any there is nothing to do, which redis takes for an error.
    pub(crate) async fn run(&self, commands: &redis::Pipeline) -> Result<(), StoreError> {
        match commands.is_empty() {
            true => Ok(()),
            false => Ok(commands.query_async(&mut self.conn.clone()).await?),
        }
    }

    /// The connection, for the queue.
    pub fn connection(&self) -> ConnectionManager {
        self.conn.clone()
    }

    /// A secret that all daemons on one Redis share: that of the first one, which brings its own.
    pub async fn shared_secret(&self, name: &str, own: [u8; 32]) -> Result<[u8; 32], StoreError> {
        let mut set = redis::cmd("SET");
        set.arg(super::keys::secret(name)).arg(&own[..]).arg("NX").arg("GET");
        let before: Option<Vec<u8>> = set.query_async(&mut self.conn.clone()).await?;
        before.map_or(Ok(own), |bytes| {
            bytes.try_into().map_err(|_| damaged("a shared secret has not 32 bytes"))
        })
    }

    /// Whether Redis takes writes, by one: it may answer and have no memory, no room on its disk, or be a replica.
    pub async fn check_writes(&self) -> Result<(), StoreError> {
        Ok(redis::cmd("SET")
            .arg(super::keys::PULSE)
            .arg("")
            .query_async(&mut self.conn.clone())
            .await?)
    }

    /// Whether Redis answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        Ok(redis::cmd("PING").query_async(&mut self.conn.clone()).await?)
    }
}

pub fn damaged(what: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged(what.to_string())
}

/// JSON that cannot be read. serde's own text may quote an address, and this one is logged.
pub fn unreadable(error: serde_json::Error) -> StoreError {
    damaged(format!(
        "{:?} error at line {} column {}",
        error.classify(),
        error.line(),
        error.column()
    ))
}

/// A script that begins with what all scripts over ledgers share.
pub fn with_prelude(text: &str) -> redis::Script {
    redis::Script::new(&format!("{}\n{text}", include_str!("chunks/prelude.lua")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_refuses_for_now_may_pass_also_from_within_a_script() {
        let reply = |line: &str| {
            let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
            StoreError::from(value.extract_error().unwrap_err())
        };
        let passing = [
            "OOM command not allowed when used memory > 'maxmemory'.",
            "MISCONF Errors writing to the AOF file: No space left on device",
            "READONLY You can't write against a read only replica.",
            "LOADING Redis is loading the dataset in memory",
            "NOREPLICAS Not enough good replicas to write.",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "CLUSTERDOWN The cluster is down",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
            "UNKILLABLE Sorry the script already executed write commands against the dataset.",
            "NOSCRIPT No matching script. Please use EVAL.",
            "EXECABORT Transaction discarded because of previous errors.",
            "ERR max number of clients reached",
        ];
        for line in passing {
            assert!(reply(line).may_pass() && reply(line).is_refusal(), "{line}");
            let from_a_script = format!("{line} script: 5c36, on @user_script:61.");
            assert!(line.starts_with("ERR") || reply(&from_a_script).may_pass(), "{from_a_script}");
        }
        let lasting = [
            "WRONGTYPE Operation against a key holding the wrong kind of value script: 5c36, on @user_script:13.",
            "ERR user_script:13: attempt to index a nil value script: 5c36, on @user_script:13.",
        ];
        for line in lasting {
            assert!(!reply(line).may_pass(), "{line}");
        }
    }

    #[test]
    fn json_that_cannot_be_read_is_not_quoted() {
        let error = serde_json::from_str::<u64>("\"ann@example.org\"").unwrap_err();
        assert!(error.to_string().contains("ann@"));
        assert_eq!(unreadable(error).to_string(), "damaged: Data error at line 1 column 17");
    }
}
