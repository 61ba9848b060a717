//! The connection to Redis, and the errors of the store.

use std::{
    sync::{Arc, RwLock},
    time::Duration,
};

use redis::{
    ErrorKind, IntoConnectionInfo, ServerErrorKind,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

use super::{
    connect_error::{ConnectError, check_mode, check_tls},
    durability::Durability,
    tls_certificates::tls_certificates,
};
use crate::config::{self, ConfigError};

/// Why a request to the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Redis did not answer, or refused.
    #[error("Redis: {0}")]
    Unavailable(#[from] redis::RedisError),
    /// A value in Redis is not what this program writes.
    #[error("damaged: {0}")]
    Damaged(String),
    /// A value in Redis was not written by a daemon of this installation. The text names the part.
    #[error("altered in Redis: {0}")]
    Altered(String),
}

impl StoreError {
    /// Whether the same request may succeed later. A damaged value never repairs itself.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Damaged(_) | Self::Altered(_) => false,
            Self::Unavailable(error) => may_pass(error),
        }
    }

    /// Logs why a pass failed, with the text `what`. An error that may pass is logged for
    /// debugging only: the pulse of Redis logs the outage, once for all.
    pub fn log_failed_pass(&self, what: &str) {
        if self.may_pass() {
            tracing::debug!(error = %self, "{what}");
        } else {
            tracing::warn!(error = %self, "{what}");
        }
    }

    /// Whether Redis answered with a refusal.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Unavailable(error) if error.code().is_some())
    }
}

/// Whether an error of Redis may pass: full memory or disk, a fail-over, a long script.
///
/// A script that meets such an error passes it on, and Redis appends `script: ..`. A plain `ERR`
/// with this word is a fault of the script itself, and does not pass.
pub fn may_pass(error: &redis::RedisError) -> bool {
    match error.kind() {
        ErrorKind::UnexpectedReturnType => false,
        ErrorKind::Server(ServerErrorKind::ResponseError) => !error.to_string().contains("script"),
        _ => error.code() != Some("WRONGTYPE"),
    }
}

/// Makes the client. An error text never repeats the URL, which may hold a password.
fn client(settings: &config::RedisSettings) -> Result<redis::Client, ConfigError> {
    let refuse =
        |setting: &str, reason: String| ConfigError { setting: format!("redis.{setting}"), reason };
    let info =
        settings.url.as_str().into_connection_info().map_err(|e| refuse("url", e.to_string()))?;
    let redis = info.redis_settings().clone();
    if redis.password().is_some() {
        return Err(refuse(
            "url",
            "must not hold a password: put it into a file and set redis.password_file".into(),
        ));
    }
    let info = match settings.password_file.as_os_str().is_empty() {
        // the redis crate would silently connect as the default user, which may do everything
        true if redis.username().is_some() => {
            let reason = "is needed for the user that redis.url names";
            return Err(refuse("password_file", reason.into()));
        }
        true => info,
        false => {
            let password =
                config::secret(&settings.password_file).map_err(|e| refuse("password_file", e))?;
            info.set_redis_settings(redis.set_password(password))
        }
    };
    match tls_certificates(settings)? {
        Some(certificates) => redis::Client::build_with_tls(info, certificates),
        None => redis::Client::open(info),
    }
    .map_err(|e| refuse("url", e.to_string()))
}

/// A connection to Redis. It is multiplexed, and all clones share it.
#[derive(Clone)]
pub struct Redis {
    pub(super) conn: ConnectionManager,
    /// For commands that block their connection.
    pub(super) blocking: ConnectionManager,
    pub(super) last_durability: Arc<RwLock<Option<Durability>>>,
    address: Arc<str>,
}

impl Redis {
    /// Checks the settings without connecting. The URL "" means the embedded Redis.
    ///
    /// # Errors
    /// If the URL is not valid, holds a password, or names a user without a password file. If a
    /// file of the settings cannot be used.
    pub fn check(settings: &config::RedisSettings) -> Result<(), ConfigError> {
        if settings.url.is_empty() { Ok(()) } else { client(settings).map(drop) }
    }

    /// Connects. Later the connection reconnects by itself.
    ///
    /// # Errors
    /// If a setting cannot be used, or Redis does not answer or refuses.
    pub async fn connect(settings: &config::RedisSettings) -> Result<Self, ConnectError> {
        let client = client(settings)?;
        let address = client.get_connection_info().addr().to_string().into();
        check_tls(client.get_connection_info().addr()).await?;
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(Duration::from_millis(settings.response_timeout_ms)))
            .set_connection_timeout(Some(Duration::from_secs(5)))
            .set_min_delay(Duration::from_millis(20))
            .set_max_delay(Duration::from_secs(1));
        let conn = ConnectionManager::new_with_config(client.clone(), config.clone()).await?;
        let blocking = ConnectionManager::new_with_config(client, config).await?;
        let mut asked = conn.clone();
        match redis::cmd("INFO").arg("server").query_async::<String>(&mut asked).await {
            Ok(info) => check_mode(&info)?,
            // a user without the right to INFO is no wrong setting
            Err(error) if error.code() == Some("NOPERM") => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Self { conn, blocking, last_durability: Arc::default(), address })
    }

    /// Runs commands whose answers do not matter. An empty pipeline is allowed here: the redis
    /// crate takes it for an error.
    pub(super) async fn run(&self, commands: &redis::Pipeline) -> Result<(), StoreError> {
        match commands.is_empty() {
            true => Ok(()),
            false => Ok(commands.query_async(&mut self.conn.clone()).await?),
        }
    }

    /// Host and port, or the path of the socket.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A clone of the connection.
    pub fn connection(&self) -> ConnectionManager {
        self.conn.clone()
    }

    /// Tries a write, because Redis may answer and still refuse writes: full memory, a full disk,
    /// or a replica.
    ///
    /// # Errors
    /// If Redis does not answer or refuses the write.
    pub async fn check_writes(&self) -> Result<(), StoreError> {
        Ok(redis::cmd("SET")
            .arg(super::keys::WRITE_CHECK)
            .arg("")
            .query_async(&mut self.conn.clone())
            .await?)
    }

    /// Checks that Redis answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        Ok(redis::cmd("PING").query_async(&mut self.conn.clone()).await?)
    }
}

/// A value that this program did not write.
pub(super) fn damaged(what: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged(what.to_string())
}

/// JSON that cannot be read. The text quotes nothing, because it is logged and serde's own text may
/// hold an address.
pub(super) fn unreadable(error: serde_json::Error) -> StoreError {
    damaged(format!(
        "{:?} error at line {} column {}",
        error.classify(),
        error.line(),
        error.column()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_for_now_may_pass_also_from_within_a_script() {
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
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or \
             SHUTDOWN NOSAVE.",
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
            "WRONGTYPE Operation against a key holding the wrong kind of value script: 5c36, \
             on @user_script:13.",
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
