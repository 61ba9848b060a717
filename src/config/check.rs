//! The checks that types alone cannot make: ranges, and settings that need each other.

use super::settings::{Config, ConfigError, refuse};

impl Config {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let s = &self.send;
        let q = &self.queue;
        let p = &self.preparation;
        let ranges: [(&str, u64, u64, u64); 32] = [
            ("server.drain_ms", self.server.drain_ms, 0, 600_000),
            ("server.body_limit_kib", self.server.body_limit_kib as u64, 1, 65_536),
            ("server.connections", self.server.connections as u64, 1, 100_000),
            ("server.head_timeout_ms", self.server.head_timeout_ms, 100, 60_000),
            ("server.stall_timeout_ms", self.server.stall_timeout_ms, 100, 600_000),
            ("server.request_timeout_ms", self.server.request_timeout_ms, 1000, 600_000),
            ("redis.response_timeout_ms", self.redis.response_timeout_ms, 100, 60_000),
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
            ("breaker.minimum", self.breaker.minimum, 1, 1_000_000),
            (
                "breaker.domain_errors_percent",
                u64::from(self.breaker.domain_errors_percent),
                0,
                100,
            ),
            (
                "breaker.delivery_refusals_percent",
                u64::from(self.breaker.delivery_refusals_percent),
                0,
                100,
            ),
            ("send.approvals", u64::from(s.approvals), 1, 2),
            ("send.retry_minutes", s.retry_minutes.len() as u64, 1, 100),
            ("fatigue.messages", u64::from(self.fatigue.messages), 0, 1000),
            ("queue.heartbeat_ms", q.heartbeat_ms, 200, 30_000),
            ("queue.missed_heartbeats", q.missed_heartbeats as u64, 2, 100),
            ("queue.poll_ms", q.poll_ms, 10, 10_000),
            ("queue.crashes", u64::from(q.crashes), 1, 100),
            ("queue.keep_done_hours", q.keep_done_hours, 0, 8760),
            ("queue.keep_dead_hours", q.keep_dead_hours, 1, 8760),
            ("auth.token_lifetime_hours", self.auth.token_lifetime_hours, 1, 24),
            ("auth.failure_pause_ms", self.auth.failure_pause_ms, 0, 5000),
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
        if !(self.fatigue.days > 0.0 && self.fatigue.days <= 366.0) {
            return Err(refuse("fatigue.days", "must be above 0 and at most 366"));
        }
        self.check_throttles()?;
        self.check_tracking()?;
        self.check_retention()?;
        if !(0.0..=10_080.0).contains(&s.grace_minutes) {
            return Err(refuse("send.grace_minutes", "must be 0 to 10080"));
        }
        if p.allowed_senders.is_empty() {
            return Err(refuse("preparation.allowed_senders", "must name at least one mask"));
        }
        if self.redis.url.is_empty() && !self.redis.password_file.as_os_str().is_empty() {
            return Err(refuse(
                "redis.password_file",
                "is for the Redis that redis.url names: the embedded one has no password",
            ));
        }
        self.check_relays()?;
        for (i, token) in self.auth.tokens.iter().enumerate() {
            let hex = token.sha256.len() == 64
                && token.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            if !hex {
                return Err(refuse(
                    format!("auth.tokens[{i}].sha256"),
                    "must be 64 lower-case hexadecimal digits",
                ));
            }
        }
        let tokens = self
            .auth
            .tokens
            .iter()
            .enumerate()
            .map(|(i, token)| (format!("auth.tokens[{i}].name"), &token.name));
        let keys = self
            .auth
            .jwt_keys
            .iter()
            .enumerate()
            .map(|(i, key)| (format!("auth.jwt_keys[{i}].issuer"), &key.issuer));
        let usable = |name: &str| {
            !name.trim().is_empty()
                && !name.contains('/')
                && !name.trim().eq_ignore_ascii_case("versand")
        };
        match tokens.chain(keys).find(|(_, name)| !usable(name)) {
            Some((setting, _)) => Err(refuse(
                setting,
                "must not be empty, hold a / or be the daemon's own name in the audit log, versand",
            )),
            None => Ok(()),
        }
    }
}
