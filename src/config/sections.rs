//! All settings, section by section, as they are in the file.
//!
//! Units, meanings and most ranges are in `config/default.toml`.

use ipnet::IpNet;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

use jiff::Timestamp;
use serde::Deserialize;

use super::{
    optional_address::optional_address,
    override_settings::OverrideSettings,
    relay_list::RelaySettings,
    retention_settings::RetentionSettings,
    throttle_settings::{BreakerSettings, ThrottleSettings},
    tracking_settings::{PublicSettings, TrackingSettings},
};
use crate::domain::{Role, delivery::InDoubt, tracking::networks};

/// All settings of the daemon. Each field is a section of the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub server: ServerSettings,
    pub public: PublicSettings,
    pub tracking: TrackingSettings,
    pub redis: RedisSettings,
    /// The only relay, or the defaults of `relays`.
    pub relay: RelaySettings,
    /// `[[relays]]`: empty if `relay` is the only one.
    pub relays: Vec<RelaySettings>,
    pub catcher: CatcherSettings,
    pub preparation: PreparationSettings,
    pub send: SendSettings,
    pub throttle: ThrottleSettings,
    pub breaker: BreakerSettings,
    pub fatigue: FatigueSettings,
    pub overrides: OverrideSettings,
    pub retention: RetentionSettings,
    pub queue: QueueSettings,
    pub auth: AuthSettings,
    pub log: LogSettings,
    /// All settings as loaded, to tell what another load changes.
    #[serde(skip)]
    pub(super) values: serde_json::Value,
}

impl Config {
    /// The relays in use, each with its name in errors: `relays[0]` and so on, or `relay` if
    /// `relays` is empty.
    pub fn relays(&self) -> Vec<(String, &RelaySettings)> {
        match self.relays.is_empty() {
            true => vec![("relay".to_owned(), &self.relay)],
            false => self
                .relays
                .iter()
                .enumerate()
                .map(|(i, relay)| (format!("relays[{i}]"), relay))
                .collect(),
        }
    }

    /// The masks of the test addresses that proofs may be sent to. `None`: every address, because
    /// no mask is set and the built-in catcher takes all mail.
    pub fn proof_masks(&self) -> Option<&[String]> {
        let masks = &self.preparation.proof_addresses;
        (!masks.is_empty() || !self.catcher.takes_mail).then_some(masks)
    }
}

/// `[server]`: the admin API, the state directory and the end of the daemon.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSettings {
    pub listen: SocketAddr,
    #[serde(deserialize_with = "optional_address")]
    pub health_listen: Option<SocketAddr>,
    pub tls_cert_file: PathBuf,
    pub tls_key_file: PathBuf,
    pub allow_plaintext: bool,
    pub state_dir: PathBuf,
    pub drain_ms: u64,
    pub body_limit_kib: usize,
    pub connections: usize,
    pub connections_per_address: usize,
    pub requests_per_principal: usize,
    pub streams: usize,
    pub streams_per_principal: usize,
    #[serde(deserialize_with = "networks")]
    pub trusted_proxies: Vec<IpNet>,
    pub head_timeout_ms: u64,
    pub stall_timeout_ms: u64,
    pub request_timeout_ms: u64,
}

/// `[redis]`: the Redis to use, or the embedded one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisSettings {
    pub url: String,
    pub password_file: PathBuf,
    pub ca_file: PathBuf,
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    pub response_timeout_ms: u64,
    pub program: String,
    pub allow_data_loss: bool,
}

/// `[catcher]`: the built-in mail catcher.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatcherSettings {
    pub listen: SocketAddr,
    pub keep: usize,
    /// Whether the catcher takes all mail. The daemon sets it if there is no relay.
    #[serde(skip)]
    pub takes_mail: bool,
}

/// `[preparation]`: limits of an audience and of its messages.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreparationSettings {
    pub chunk_size: usize,
    pub allowed_senders: Vec<String>,
    pub proof_addresses: Vec<String>,
    pub proofs_per_hour: u64,
    pub message_limit_kib: usize,
    pub line_limit_kib: usize,
    pub errors_shown: usize,
    pub computing_ms: u64,
    pub computing_us_per_message: u64,
}

/// Which SMTP replies the sending log keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeepReplies {
    /// Only those of deferrals and failures.
    Failures,
    All,
}

/// `[send]`: chunks, leases, retries and confirmations.
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

impl SendSettings {
    /// How old the last heartbeat of the store may be before the store counts as behind: the grace
    /// window, and at least five minutes.
    pub fn silence(&self) -> Duration {
        Duration::from_secs_f64(60.0 * self.grace_minutes.max(5.0))
    }

    /// How long a lease lasts without a beat.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }
}

/// `[queue]`: heartbeats of workers, and how long jobs are kept.
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

/// `[auth]`: who may call.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthSettings {
    pub issuer_audience: String,
    pub token_lifetime_hours: u64,
    pub failures_per_minute: u32,
    pub installation_key_file: PathBuf,
    pub tokens: Vec<TokenSettings>,
    pub jwt_keys: Vec<JwtKeySettings>,
}

/// `[fatigue]`: the rule of deliveries that have none of their own. With 0 messages there is none.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FatigueSettings {
    pub messages: u32,
    pub days: f64,
}

/// A bearer token. Only the SHA-256 of its text is known, in hexadecimal.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSettings {
    pub name: String,
    pub sha256: String,
    pub roles: Vec<Role>,
    /// The unit outside of which the principal sees nothing.
    #[serde(default)]
    pub unit: Option<String>,
    /// The token is not valid from then on.
    #[serde(default)]
    pub expires: Option<Timestamp>,
}

/// An issuer that may sign JWTs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtKeySettings {
    pub issuer: String,
    pub algorithm: String,
    /// A PEM public key, or the raw secret for the HS algorithms.
    pub key_file: PathBuf,
    /// The roles that tokens of this issuer may claim. A token with any other role of Versand
    /// is refused.
    pub roles: Vec<Role>,
    /// The unit of all tokens of this issuer. Without it each token may claim one.
    #[serde(default)]
    pub unit: Option<String>,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Text,
    Json,
}

/// `[log]`: format and filter of the log.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    pub format: LogFormat,
    pub level: String,
}
