//! What holds the sender back: limits of recipient domains, and circuit breakers.

use std::time::Duration;

use serde::Deserialize;

use super::settings::{Config, ConfigError, refuse};

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
    /// Recipients that are being sent to at a time; 0: no limit.
    #[serde(default)]
    pub connections: usize,
}

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
    pub fn window(&self) -> Duration {
        Duration::from_secs_f64(self.window_minutes * 60.0)
    }
}

/// Messages per second; 0 is no limit.
pub(super) fn is_rate(rate: f64) -> bool {
    rate == 0.0 || (0.001..=1e6).contains(&rate)
}

impl Config {
    pub(super) fn check_throttles(&self) -> Result<(), ConfigError> {
        let b = &self.breaker;
        for (setting, minutes) in [
            ("breaker.window_minutes", b.window_minutes),
            ("breaker.domain_pause_minutes", b.domain_pause_minutes),
            ("breaker.delivery_pause_minutes", b.delivery_pause_minutes),
        ] {
            if !(0.01..=1440.0).contains(&minutes) {
                return Err(refuse(setting, "must be 0.01 to 1440"));
            }
        }
        if !is_rate(self.send.messages_per_second) {
            return Err(refuse("send.messages_per_second", "must be 0, or 0.001 to 1000000"));
        }
        for (i, limit) in self.throttle.domains.iter().enumerate() {
            let refused = |field: &str, reason: &str| {
                Err(refuse(format!("throttle.domains[{i}].{field}"), reason))
            };
            let taken = self.throttle.domains[..i].iter().any(|other| other.name == limit.name);
            let plain =
                limit.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            if limit.name.is_empty() || limit.name.len() > 100 || taken || !plain {
                return refused(
                    "name",
                    "must be a name of its own, of 1 to 100 letters, digits and - _ .",
                );
            }
            if limit.domains.is_empty()
                || limit.domains.iter().any(|mask| mask.trim().is_empty() || mask.contains('@'))
            {
                return refused("domains", "must name domains, or masks such as *.example.com");
            }
            if !is_rate(limit.messages_per_second) {
                return refused("messages_per_second", "must be 0, or 0.001 to 1000000");
            }
            if limit.connections > 100_000 {
                return refused("connections", "must be 0 to 100000");
            }
        }
        Ok(())
    }
}
