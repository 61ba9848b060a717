//! The settings of relays: `[relay]` and `[[relays]]`.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::{
    config_error::{ConfigError, refuse},
    ranges::{check_ranges, is_rate},
};

/// How a connection to a relay is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tls {
    None,
    Starttls,
    Implicit,
}

/// One relay: how it is reached, and how much may be sent to it.
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

/// Gives each of `[[relays]]` the settings of `[relay]` that it leaves out, except the name.
pub(super) fn inherit(merged: &mut Value) {
    let Some(defaults) = merged.get("relay").and_then(Value::as_object).cloned() else { return };
    for relay in merged.get_mut("relays").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(relay) = relay.as_object_mut() else { continue };
        for (setting, value) in defaults.iter().filter(|(setting, _)| *setting != "name") {
            relay.entry(setting).or_insert_with(|| value.clone());
        }
    }
}

impl RelaySettings {
    /// Checks the name and the ranges of a relay, even of one that is not used. `at` is the name of
    /// the relay in errors.
    pub(super) fn check_ranges(&self, at: &str) -> Result<(), ConfigError> {
        check_ranges(
            &format!("{at}."),
            &[
                ("port", u64::from(self.port), 1, 65_535),
                ("connections", self.connections as u64, 1, 1000),
                ("messages_per_connection", u64::from(self.messages_per_connection), 1, 1_000_000),
                ("idle_ms", self.idle_ms, 100, 300_000),
                ("connect_timeout_ms", self.connect_timeout_ms, 10, 600_000),
                ("command_timeout_ms", self.command_timeout_ms, 10, 3_600_000),
                ("data_timeout_ms", self.data_timeout_ms, 10, 3_600_000),
                ("body_timeout_ms", self.body_timeout_ms, 10, 3_600_000),
                ("final_timeout_ms", self.final_timeout_ms, 10, 3_600_000),
                ("weight", u64::from(self.weight), 0, 1000),
            ],
        )?;
        if !is_rate(self.messages_per_second) {
            return Err(refuse(
                format!("{at}.messages_per_second"),
                "must be 0, or 0.001 to 1000000",
            ));
        }
        if self.total_connections > 100_000 {
            return Err(refuse(format!("{at}.total_connections"), "must be 0 to 100000"));
        }
        // The name is a label of metrics and appears in logs.
        let is_label = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        match (1..=64).contains(&self.name.len()) && self.name.bytes().all(is_label) {
            true => Ok(()),
            false => Err(refuse(
                format!("{at}.name"),
                "must be 1 to 64 of the ASCII letters, digits, -, _ and .",
            )),
        }
    }

    /// Checks that a user name comes with a password, and with TLS. `at` is the name in errors.
    pub(super) fn check_login(&self, at: &str) -> Result<(), ConfigError> {
        if !self.username.is_empty() && self.password_file.as_os_str().is_empty() {
            return Err(refuse(
                format!("{at}.password_file"),
                format!("is needed with {at}.username"),
            ));
        }
        if !self.username.is_empty() && self.tls == Tls::None {
            let reason = "AUTH needs starttls or implicit: a password is not sent in the clear";
            return Err(refuse(format!("{at}.tls"), reason));
        }
        Ok(())
    }
}
