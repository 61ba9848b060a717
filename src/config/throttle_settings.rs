//! The settings that slow the sender down: limits of recipient domains, and circuit breakers.

use std::time::Duration;

use serde::Deserialize;

use super::{
    config_error::{ConfigError, refuse},
    ranges::is_rate,
};

/// `[throttle]`: limits of recipient domains.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThrottleSettings {
    pub domains: Vec<DomainLimit>,
}

/// A limit that recipient domains share, for all daemons together.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainLimit {
    pub name: String,
    /// Masks such as `*.example.com`.
    pub domains: Vec<String>,
    /// 0: no limit.
    #[serde(default)]
    pub messages_per_second: f64,
    /// Recipients that are sent to at the same time; 0: no limit.
    #[serde(default)]
    pub connections: usize,
}

/// `[breaker]`: the error rates that pause a recipient domain or a delivery.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerSettings {
    pub window_minutes: f64,
    pub minimum: u64,
    pub domain_errors_percent: u32,
    pub domain_pause_minutes: f64,
    pub delivery_refusals_percent: u32,
    pub delivery_pause_minutes: f64,
}

impl BreakerSettings {
    /// How far back outcomes count.
    pub fn window(&self) -> Duration {
        Duration::from_secs_f64(self.window_minutes * 60.0)
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for (setting, minutes) in [
            ("breaker.window_minutes", self.window_minutes),
            ("breaker.domain_pause_minutes", self.domain_pause_minutes),
            ("breaker.delivery_pause_minutes", self.delivery_pause_minutes),
        ] {
            if !(0.01..=1440.0).contains(&minutes) {
                return Err(refuse(setting, "must be 0.01 to 1440"));
            }
        }
        Ok(())
    }
}

impl ThrottleSettings {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for (i, limit) in self.domains.iter().enumerate() {
            let is_taken = self.domains[..i].iter().any(|other| other.name == limit.name);
            limit.check(is_taken).map_err(|(setting, reason)| {
                refuse(format!("throttle.domains[{i}].{setting}"), reason)
            })?;
        }
        Ok(())
    }
}

impl DomainLimit {
    /// The first setting that cannot be used, and why. `is_taken`: another limit has this name.
    fn check(&self, is_taken: bool) -> Result<(), (&'static str, &'static str)> {
        let is_plain = self.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if self.name.is_empty() || self.name.len() > 100 || is_taken || !is_plain {
            return Err((
                "name",
                "must be a name of its own, of 1 to 100 letters, digits and - _ .",
            ));
        }
        if self.domains.is_empty()
            || self.domains.iter().any(|mask| mask.trim().is_empty() || mask.contains('@'))
        {
            return Err(("domains", "must name domains, or masks such as *.example.com"));
        }
        if !is_rate(self.messages_per_second) {
            return Err(("messages_per_second", "must be 0, or 0.001 to 1000000"));
        }
        if self.connections > 100_000 {
            return Err(("connections", "must be 0 to 100000"));
        }
        Ok(())
    }
}
