//! The settings: embedded defaults, then a file, then the environment; validated once.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::domain::{delivery::InDoubt, role::Role};

/// `config/default.toml`, compiled in: every setting and its default.
pub const DEFAULTS: &str = include_str!("../config/default.toml");

/// A setting that cannot be used; its text names the setting and is one line.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {reason}")]
pub struct ConfigError {
    pub setting: String,
    pub reason: String,
}

fn refuse(setting: impl Into<String>, reason: impl fmt::Display) -> ConfigError {
    let reason = reason.to_string().replace('\n', " ");
    ConfigError { setting: setting.into(), reason }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub server: Server,
    pub redis: Redis,
    pub relay: Relay,
    pub catcher: Catcher,
    pub preparation: Preparation,
    pub send: Send,
    pub queue: Queue,
    pub auth: Auth,
    pub log: Log,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    pub listen: SocketAddr,
    pub state_dir: PathBuf,
    pub drain_ms: u64,
    pub body_limit_kib: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    pub url: String,
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
pub struct Relay {
    pub host: String,
    pub port: u16,
    pub tls: Tls,
    pub ca_file: PathBuf,
    pub username: String,
    pub password_file: PathBuf,
    pub hello_name: String,
    pub connections: usize,
    pub messages_per_connection: u32,
    pub idle_ms: u64,
    pub connect_timeout_ms: u64,
    pub command_timeout_ms: u64,
    pub data_timeout_ms: u64,
    pub body_timeout_ms: u64,
    pub final_timeout_ms: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catcher {
    pub listen: SocketAddr,
    pub keep: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preparation {
    pub chunk_size: usize,
    pub allowed_senders: Vec<String>,
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
pub struct Send {
    pub chunks_in_flight: usize,
    pub workers: usize,
    pub claim_window: usize,
    pub lease_ms: u64,
    pub slice_ms: u64,
    pub in_doubt: InDoubt,
    pub retry_minutes: Vec<f64>,
    pub validity_hours: f64,
    pub keep_replies: KeepReplies,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    pub heartbeat_ms: u64,
    pub missed_heartbeats: usize,
    pub poll_ms: u64,
    pub crashes: u32,
    pub keep_done_hours: u64,
    pub keep_dead_hours: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    pub issuer_audience: String,
    pub token_lifetime_hours: u64,
    pub tokens: Vec<Token>,
    pub jwt_keys: Vec<JwtKey>,
}

/// A bearer token, known only by the SHA-256 of its text, in lower-case hexadecimal.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    pub name: String,
    pub sha256: String,
    pub roles: Vec<Role>,
}

/// Who may sign JWTs. `key_file` is a PEM public key, or the raw secret for the HS algorithms.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtKey {
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
pub struct Log {
    pub format: LogFormat,
    pub level: String,
}

impl Config {
    /// Reads the defaults, `file` and the environment (`VERSAND__SECTION__SETTING`), in this order.
    ///
    /// # Errors
    /// The first setting that is unknown, of the wrong type or out of its range.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::layered(file, config::Environment::with_prefix("VERSAND").prefix_separator("__").separator("__").try_parsing(true))
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
        let mut builder = config::Config::builder().add_source(config::File::from_str(DEFAULTS, config::FileFormat::Toml));
        if let Some(path) = file {
            let text = std::fs::read_to_string(path).map_err(|e| refuse(path.display().to_string(), e))?;
            builder = builder.add_source(config::File::from_str(&text, config::FileFormat::Toml));
        }
        Self::build(builder.add_source(environment))
    }

    fn build(builder: config::ConfigBuilder<config::builder::DefaultState>) -> Result<Self, ConfigError> {
        let merged = builder.build().map_err(|e| refuse("configuration", e))?;
        let mut config: Self = serde_path_to_error::deserialize(merged).map_err(|e| refuse(e.path().to_string(), e.inner()))?;
        if config.server.state_dir.as_os_str().is_empty() {
            config.server.state_dir =
                std::env::var_os("STATE_DIRECTORY").map_or_else(|| "/var/lib/versand".into(), PathBuf::from);
        }
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let s = &self.send;
        let r = &self.relay;
        let q = &self.queue;
        let p = &self.preparation;
        let ranges: [(&str, u64, u64, u64); 31] = [
            ("server.drain_ms", self.server.drain_ms, 0, 600_000),
            ("server.body_limit_kib", self.server.body_limit_kib as u64, 1, 65_536),
            ("redis.response_timeout_ms", self.redis.response_timeout_ms, 100, 60_000),
            ("relay.port", u64::from(r.port), 1, 65_535),
            ("relay.connections", r.connections as u64, 1, 1000),
            ("relay.messages_per_connection", u64::from(r.messages_per_connection), 1, 1_000_000),
            ("relay.idle_ms", r.idle_ms, 100, 300_000),
            ("relay.connect_timeout_ms", r.connect_timeout_ms, 10, 600_000),
            ("relay.command_timeout_ms", r.command_timeout_ms, 10, 3_600_000),
            ("relay.data_timeout_ms", r.data_timeout_ms, 10, 3_600_000),
            ("relay.body_timeout_ms", r.body_timeout_ms, 10, 3_600_000),
            ("relay.final_timeout_ms", r.final_timeout_ms, 10, 3_600_000),
            ("catcher.keep", self.catcher.keep as u64, 1, 10_000_000),
            ("preparation.chunk_size", p.chunk_size as u64, 1, 10_000),
            ("preparation.message_limit_kib", p.message_limit_kib as u64, 1, 65_536),
            ("preparation.line_limit_kib", p.line_limit_kib as u64, 1, 1024),
            ("preparation.errors_shown", p.errors_shown as u64, 1, 10_000),
            ("send.chunks_in_flight", s.chunks_in_flight as u64, 1, 1000),
            ("send.workers", s.workers as u64, 1, 1000),
            ("send.claim_window", s.claim_window as u64, 1, 256),
            ("send.lease_ms", s.lease_ms, 500, 300_000),
            ("send.slice_ms", s.slice_ms, 100, 600_000),
            ("send.retry_minutes", s.retry_minutes.len() as u64, 1, 100),
            ("queue.heartbeat_ms", q.heartbeat_ms, 200, 30_000),
            ("queue.missed_heartbeats", q.missed_heartbeats as u64, 2, 100),
            ("queue.poll_ms", q.poll_ms, 10, 10_000),
            ("queue.crashes", u64::from(q.crashes), 1, 100),
            ("queue.keep_done_hours", q.keep_done_hours, 0, 8760),
            ("queue.keep_dead_hours", q.keep_dead_hours, 1, 8760),
            ("auth.token_lifetime_hours", self.auth.token_lifetime_hours, 1, 24),
            ("auth.issuer_audience", self.auth.issuer_audience.len() as u64, 1, 200),
        ];
        for (setting, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return Err(refuse(setting, format!("must be {least}..{most}, is {value}")));
            }
        }
        if !(s.validity_hours > 0.0 && s.validity_hours <= 8760.0) {
            return Err(refuse("send.validity_hours", "must be above 0 and at most 8760"));
        }
        if s.retry_minutes.iter().any(|m| !(*m > 0.0 && *m <= 10_080.0)) {
            return Err(refuse("send.retry_minutes", "each must be above 0 and at most 10080"));
        }
        if p.allowed_senders.is_empty() {
            return Err(refuse("preparation.allowed_senders", "must name at least one mask"));
        }
        if !r.username.is_empty() && r.password_file.as_os_str().is_empty() {
            return Err(refuse("relay.password_file", "is needed with relay.username"));
        }
        if !r.username.is_empty() && r.tls == Tls::None {
            return Err(refuse("relay.tls", "AUTH needs starttls or implicit: a password is not sent in the clear"));
        }
        for (i, token) in self.auth.tokens.iter().enumerate() {
            let hex = token.sha256.len() == 64 && token.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            if !hex {
                return Err(refuse(format!("auth.tokens[{i}].sha256"), "must be 64 lower-case hexadecimal digits"));
            }
        }
        let tokens = self.auth.tokens.iter().enumerate().map(|(i, token)| (format!("auth.tokens[{i}].name"), &token.name));
        let keys = self.auth.jwt_keys.iter().enumerate().map(|(i, key)| (format!("auth.jwt_keys[{i}].issuer"), &key.issuer));
        let usable = |name: &str| !name.trim().is_empty() && !name.contains('/') && !name.trim().eq_ignore_ascii_case("versand");
        match tokens.chain(keys).find(|(_, name)| !usable(name)) {
            Some((setting, _)) => {
                Err(refuse(setting, "must not be empty, hold a / or be the daemon's own name in the audit log, versand"))
            }
            None => Ok(()),
        }
    }
}

impl Send {
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }
}
