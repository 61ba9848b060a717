//! Rewrites of the append-only file: put off while a backup copies its parts.

use super::{
    connect_error::ConnectError,
    connection::{Redis, StoreError},
    durability::info_field,
};
use crate::config::RedisSettings;

/// The setting of Redis that starts rewrites by itself; 0 means never.
const SETTING: &str = "auto-aof-rewrite-percentage";

impl Redis {
    /// Connects to a server that needs no password, such as an embedded one.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn connect_to(url: &str) -> Result<Self, ConnectError> {
        let settings = RedisSettings {
            url: url.to_owned(),
            password_file: Default::default(),
            ca_file: Default::default(),
            cert_file: Default::default(),
            key_file: Default::default(),
            response_timeout_ms: 60_000,
            program: String::new(),
            allow_data_loss: true,
        };
        Self::connect(&settings).await
    }

    /// Keeps Redis from beginning a rewrite by itself. Returns the value for
    /// [`Self::resume_rewrites`].
    ///
    /// # Errors
    /// If Redis does not answer or refuses.
    pub async fn put_off_rewrites(&self) -> Result<String, StoreError> {
        let mut conn = self.connection();
        let (_, before): (String, String) =
            redis::cmd("CONFIG").arg("GET").arg(SETTING).query_async(&mut conn).await?;
        self.resume_rewrites("0").await?;
        // a backup that was killed has left 0: the default of Redis is 100
        Ok(if before == "0" { "100".to_owned() } else { before })
    }

    /// Lets Redis rewrite again.
    ///
    /// # Errors
    /// If Redis does not answer or refuses.
    pub async fn resume_rewrites(&self, percentage: &str) -> Result<(), StoreError> {
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg(SETTING).arg(percentage);
        Ok(set.query_async(&mut self.connection()).await?)
    }

    /// Whether a rewrite runs or is about to run.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn rewrites(&self) -> Result<bool, StoreError> {
        let info: String =
            redis::cmd("INFO").arg("persistence").query_async(&mut self.connection()).await?;
        let is_on = |field| info_field(&info, field) == "1";
        Ok(is_on("aof_rewrite_in_progress") || is_on("aof_rewrite_scheduled"))
    }
}
