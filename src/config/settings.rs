//! The settings: embedded defaults, then a file, then the environment; validated once.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use super::{
    retention::RetentionSettings,
    throttles::{BreakerSettings, ThrottleSettings},
    tracking::{PublicSettings, TrackingSettings},
};
use crate::domain::{Role, delivery::InDoubt};

/// `config/default.toml`, compiled in: every setting and its default.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

/// A setting that cannot be used; its text names the setting and is one line.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {reason}")]
pub struct ConfigError {
    pub setting: String,
    pub reason: String,
}

pub(super) fn refuse(setting: impl Into<String>, reason: impl fmt::Display) -> ConfigError {
    let reason = reason.to_string().replace('\n', " ");
    ConfigError { setting: setting.into(), reason }
}

/// The secret in a file: its first line.
///
/// # Errors
/// Why there is none.
pub fn secret(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    match text.lines().next() {
        Some(secret) if !secret.is_empty() => Ok(secret.to_owned()),
        _ => Err("its first line is empty".into()),
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub server: ServerSettings,
    pub public: PublicSettings,
    pub tracking: TrackingSettings,
    pub redis: RedisSettings,
    pub relay: RelaySettings,
    pub relays: Vec<RelaySettings>,
    pub catcher: CatcherSettings,
    pub preparation: PreparationSettings,
    pub send: SendSettings,
    pub throttle: ThrottleSettings,
    pub breaker: BreakerSettings,
    pub fatigue: FatigueSettings,
    pub retention: RetentionSettings,
    pub queue: QueueSettings,
    pub auth: AuthSettings,
    pub log: LogSettings,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSettings {
    pub listen: SocketAddr,
    pub state_dir: PathBuf,
    pub drain_ms: u64,
    pub body_limit_kib: usize,
    pub connections: usize,
    pub head_timeout_ms: u64,
    pub stall_timeout_ms: u64,
    pub request_timeout_ms: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisSettings {
    pub url: String,
    pub password_file: PathBuf,
    pub response_timeout_ms: u64,
    pub program: String,
    pub allow_data_loss: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tls {
    None,
    Starttls,
    Implicit,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelaySettings {
    pub name: String,
    pub host: String,
    pub port: u16,
    pub tls: Tls,
    pub ca_file: PathBuf,
    pub username: String,
    pub password_file: PathBuf,
    pub hello_name: String,
    pub connections: usize,
    pub total_connections: usize,
    pub messages_per_second: f64,
    pub messages_per_connection: u32,
    pub idle_ms: u64,
    pub connect_timeout_ms: u64,
    pub command_timeout_ms: u64,
    pub data_timeout_ms: u64,
    pub body_timeout_ms: u64,
    pub final_timeout_ms: u64,
    pub weight: u32,
    pub sender_domains: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatcherSettings {
    pub listen: SocketAddr,
    pub keep: usize,
    /// Whether it takes all mail: set by the daemon, when there is no relay.
    #[serde(skip)]
    pub takes_mail: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreparationSettings {
    pub chunk_size: usize,
    pub allowed_senders: Vec<String>,
    pub proof_addresses: Vec<String>,
    pub message_limit_kib: usize,
    pub line_limit_kib: usize,
    pub errors_shown: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeepReplies {
    Failures,
    All,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendSettings {
    pub chunks_in_flight: usize,
    pub workers: usize,
    pub claim_window: usize,
    pub lease_ms: u64,
    pub slice_ms: u64,
    pub in_doubt: InDoubt,
    pub retry_minutes: Vec<f64>,
    pub validity_hours: f64,
    pub keep_replies: KeepReplies,
    pub grace_minutes: f64,
    pub messages_per_second: f64,
    pub approvals: u8,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueSettings {
    pub heartbeat_ms: u64,
    pub missed_heartbeats: usize,
    pub poll_ms: u64,
    pub crashes: u32,
    pub keep_done_hours: u64,
    pub keep_dead_hours: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthSettings {
    pub issuer_audience: String,
    pub token_lifetime_hours: u64,
    pub failure_pause_ms: u64,
    pub tokens: Vec<TokenSettings>,
    pub jwt_keys: Vec<JwtKeySettings>,
}

/// The rule of deliveries that have none of their own; 0 messages is none.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FatigueSettings {
    pub messages: u32,
    pub days: f64,
}

/// A bearer token, known only by the SHA-256 of its text, in lower-case hexadecimal.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSettings {
    pub name: String,
    pub sha256: String,
    pub roles: Vec<Role>,
}

/// Who may sign JWTs. `key_file` is a PEM public key, or the raw secret for the HS algorithms.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtKeySettings {
    pub issuer: String,
    pub algorithm: String,
    pub key_file: PathBuf,
    /// The roles that tokens of this issuer may claim; a claim beyond them is refused.
    pub roles: Vec<Role>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    pub format: LogFormat,
    pub level: String,
}

impl Config {
    /// Reads the defaults, `file` and the environment (`VERSAND__SECTION__SETTING`), in this order.
    ///
    /// # Errors
    /// The first setting that is unknown, of the wrong type or out of its range.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mistyped = |name: &str| name.starts_with("VERSAND_") && !name.starts_with("VERSAND__");
        if let Some(name) = std::env::vars_os()
            .filter_map(|(name, _)| name.into_string().ok())
            .find(|name| mistyped(name))
        {
            return Err(refuse(
                name,
                "names no setting: two underscores, as in VERSAND__RELAY__HOST",
            ));
        }
        Self::layered(
            file,
            config::Environment::with_prefix("VERSAND")
                .prefix_separator("__")
                .separator("__")
                .try_parsing(true),
        )
    }

    /// The settings from TOML text over the defaults, without a file or the environment.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let empty = config::Environment::with_prefix("VERSAND").source(Some(config::Map::new()));
        Self::build(
            config::Config::builder()
                .add_source(config::File::from_str(DEFAULTS, config::FileFormat::Toml))
                .add_source(config::File::from_str(text, config::FileFormat::Toml))
                .add_source(empty),
        )
    }

    fn layered(file: Option<&Path>, environment: config::Environment) -> Result<Self, ConfigError> {
        let mut builder = config::Config::builder()
            .add_source(config::File::from_str(DEFAULTS, config::FileFormat::Toml));
        if let Some(path) = file {
            let text =
                std::fs::read_to_string(path).map_err(|e| refuse(path.display().to_string(), e))?;
            builder = builder.add_source(config::File::from_str(&text, config::FileFormat::Toml));
        }
        Self::build(builder.add_source(environment))
    }

    fn build(
        builder: config::ConfigBuilder<config::builder::DefaultState>,
    ) -> Result<Self, ConfigError> {
        let merged = builder.build().map_err(|e| refuse("configuration", e))?;
        // by way of JSON, whose errors say what is expected
        let mut merged: serde_json::Value =
            merged.try_deserialize().map_err(|e| refuse("configuration", e))?;
        super::relays::inherit(&mut merged);
        let mut config: Self = serde_path_to_error::deserialize(merged)
            .map_err(|e| refuse(e.path().to_string(), e.inner()))?;
        if config.server.state_dir.as_os_str().is_empty() {
            config.server.state_dir = std::env::var_os("STATE_DIRECTORY")
                .map_or_else(|| "/var/lib/versand".into(), PathBuf::from);
        }
        config.check()?;
        Ok(config)
    }
}

impl SendSettings {
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }
}
