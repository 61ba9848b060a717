//! The checks that types alone cannot make: ranges, and settings that need each other.

use std::collections::HashSet;

use super::{
    config_error::{ConfigError, refuse},
    ranges::{check_ranges, is_rate},
    sections::{AuthSettings, Config, RedisSettings, ServerSettings, TokenSettings},
};
use crate::domain::{is_unit_name, misleads};

impl Config {
    /// Checks every setting. The first one that cannot be used is the error.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        check_ranges("", &self.ranges())?;
        self.check_numbers()?;
        self.breaker.check()?;
        if !is_rate(self.send.messages_per_second) {
            return Err(refuse("send.messages_per_second", "must be 0, or 0.001 to 1000000"));
        }
        self.throttle.check()?;
        self.public.check()?;
        self.tracking.check()?;
        self.retention.check()?;
        if !(0.0..=10_080.0).contains(&self.send.grace_minutes) {
            return Err(refuse("send.grace_minutes", "must be 0 to 10080"));
        }
        if self.preparation.allowed_senders.is_empty() {
            return Err(refuse("preparation.allowed_senders", "must name at least one mask"));
        }
        self.redis.check()?;
        self.check_relays()?;
        self.server.check()?;
        self.auth.check()
    }

    /// The whole numbers and two lengths, with their ranges: setting, value, smallest, largest.
    fn ranges(&self) -> [(&'static str, u64, u64, u64); 39] {
        let v = &self.server;
        let s = &self.send;
        let q = &self.queue;
        let p = &self.preparation;
        let b = &self.breaker;
        let (domain_errors, delivery_refusals) =
            (u64::from(b.domain_errors_percent), u64::from(b.delivery_refusals_percent));
        [
            ("server.drain_ms", self.server.drain_ms, 0, 600_000),
            ("server.body_limit_kib", self.server.body_limit_kib as u64, 1, 65_536),
            ("server.connections", self.server.connections as u64, 1, 100_000),
            ("server.connections_per_address", v.connections_per_address as u64, 1, 100_000),
            ("server.requests_per_principal", v.requests_per_principal as u64, 1, 100_000),
            ("server.streams", v.streams as u64, 1, 100_000),
            ("server.streams_per_principal", v.streams_per_principal as u64, 1, 100_000),
            ("server.head_timeout_ms", self.server.head_timeout_ms, 100, 60_000),
            ("server.stall_timeout_ms", self.server.stall_timeout_ms, 100, 600_000),
            ("server.request_timeout_ms", self.server.request_timeout_ms, 1000, 600_000),
            ("redis.response_timeout_ms", self.redis.response_timeout_ms, 100, 60_000),
            ("catcher.keep", self.catcher.keep as u64, 1, 10_000_000),
            ("preparation.chunk_size", p.chunk_size as u64, 1, 10_000),
            ("preparation.proofs_per_hour", p.proofs_per_hour, 1, 100_000),
            ("preparation.message_limit_kib", p.message_limit_kib as u64, 1, 65_536),
            ("preparation.line_limit_kib", p.line_limit_kib as u64, 1, 1024),
            ("preparation.errors_shown", p.errors_shown as u64, 1, 10_000),
            ("preparation.computing_ms", p.computing_ms, 100, 3_600_000),
            ("preparation.computing_us_per_message", p.computing_us_per_message, 10, 1_000_000),
            ("send.chunks_in_flight", s.chunks_in_flight as u64, 1, 1000),
            ("send.workers", s.workers as u64, 1, 1000),
            ("send.claim_window", s.claim_window as u64, 1, 256),
            ("send.lease_ms", s.lease_ms, 500, 300_000),
            ("send.slice_ms", s.slice_ms, 100, 600_000),
            ("breaker.minimum", b.minimum, 1, 1_000_000),
            ("breaker.domain_errors_percent", domain_errors, 0, 100),
            ("breaker.delivery_refusals_percent", delivery_refusals, 0, 100),
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
            ("auth.failures_per_minute", u64::from(self.auth.failures_per_minute), 0, 100_000),
            ("auth.issuer_audience", self.auth.issuer_audience.len() as u64, 1, 200),
        ]
    }

    /// The ranges of numbers that need not be whole.
    fn check_numbers(&self) -> Result<(), ConfigError> {
        let s = &self.send;
        if !(s.validity_hours > 0.0 && s.validity_hours <= 8760.0) {
            return Err(refuse("send.validity_hours", "must be above 0 and at most 8760"));
        }
        if s.retry_minutes.iter().any(|m| !(*m > 0.0 && *m <= 10_080.0)) {
            return Err(refuse("send.retry_minutes", "each must be above 0 and at most 10080"));
        }
        if !(self.fatigue.days > 0.0 && self.fatigue.days <= 366.0) {
            return Err(refuse("fatigue.days", "must be above 0 and at most 366"));
        }
        Ok(())
    }

    fn check_relays(&self) -> Result<(), ConfigError> {
        self.relay.check_ranges("relay")?;
        let mut names = HashSet::new();
        for (at, relay) in self.relays() {
            relay.check_ranges(&at)?;
            relay.check_login(&at)?;
            if !self.relays.is_empty() && relay.host.is_empty() {
                return Err(refuse(format!("{at}.host"), "is needed, here or as relay.host"));
            }
            if !names.insert(&relay.name) {
                return Err(refuse(
                    format!("{at}.name"),
                    format!("{} is the name of another relay", relay.name),
                ));
            }
        }
        Ok(())
    }
}

impl ServerSettings {
    /// True if tokens would cross a network in clear text.
    pub fn is_plaintext_beyond_loopback(&self) -> bool {
        self.tls_cert_file.as_os_str().is_empty() && !self.listen.ip().to_canonical().is_loopback()
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.tls_cert_file.as_os_str().is_empty() != self.tls_key_file.as_os_str().is_empty() {
            return Err(refuse("server.tls_key_file", "must be set with server.tls_cert_file"));
        }
        if self.is_plaintext_beyond_loopback() && !self.allow_plaintext {
            return Err(refuse(
                "server.listen",
                format!(
                    "tokens for {} would cross the network in clear text: set \
                     server.tls_cert_file and server.tls_key_file, or listen on 127.0.0.1 behind \
                     a proxy with TLS. server.allow_plaintext permits it all the same",
                    self.listen
                ),
            ));
        }
        Ok(())
    }
}

impl RedisSettings {
    fn check(&self) -> Result<(), ConfigError> {
        if self.url.is_empty() && !self.password_file.as_os_str().is_empty() {
            return Err(refuse(
                "redis.password_file",
                "is for the Redis that redis.url names: the embedded one has no password",
            ));
        }
        let (has_cert, has_key) =
            (!self.cert_file.as_os_str().is_empty(), !self.key_file.as_os_str().is_empty());
        let has_ca = !self.ca_file.as_os_str().is_empty();
        let used = [("ca_file", has_ca), ("cert_file", has_cert), ("key_file", has_key)];
        let is_tls = self.url.starts_with("rediss://") || self.url.starts_with("valkeys://");
        if let (false, Some((name, _))) = (is_tls, used.iter().find(|(_, is_used)| *is_used)) {
            return Err(refuse(
                format!("redis.{name}"),
                "is for TLS: redis.url must begin with rediss:// or valkeys://",
            ));
        }
        match (has_cert, has_key) {
            (true, false) => Err(refuse("redis.key_file", "is needed with redis.cert_file")),
            (false, true) => Err(refuse("redis.cert_file", "is needed with redis.key_file")),
            _ => Ok(()),
        }
    }
}

impl AuthSettings {
    fn check(&self) -> Result<(), ConfigError> {
        if let Some(i) = self.tokens.iter().position(|token| !token.has_digest()) {
            return Err(refuse(
                format!("auth.tokens[{i}].sha256"),
                "must be 64 hexadecimal digits",
            ));
        }
        let (mut names, mut hashes) = (HashSet::new(), HashSet::new());
        for (i, token) in self.tokens.iter().enumerate() {
            if !names.insert(token.name.trim()) {
                return Err(refuse(
                    format!("auth.tokens[{i}].name"),
                    format!("{} is the name of another token", token.name),
                ));
            }
            if !hashes.insert(token.sha256.to_ascii_lowercase()) {
                return Err(refuse(
                    format!("auth.tokens[{i}].sha256"),
                    "is that of another token: each principal needs a token of its own",
                ));
            }
        }
        let tokens = self
            .tokens
            .iter()
            .enumerate()
            .map(|(i, token)| (format!("auth.tokens[{i}].name"), &token.name));
        let keys = self
            .jwt_keys
            .iter()
            .enumerate()
            .map(|(i, key)| (format!("auth.jwt_keys[{i}].issuer"), &key.issuer));
        let is_usable = |name: &str| {
            !name.trim().is_empty()
                && !name.contains('/')
                && !name.contains(misleads)
                && !name.trim().eq_ignore_ascii_case("versand")
        };
        let units = self.tokens.iter().map(|token| &token.unit).enumerate();
        let units = units.map(|(i, unit)| (format!("auth.tokens[{i}].unit"), unit));
        let of_keys = self.jwt_keys.iter().map(|key| &key.unit).enumerate();
        let of_keys = of_keys.map(|(i, unit)| (format!("auth.jwt_keys[{i}].unit"), unit));
        let is_bad = |unit: &Option<String>| unit.as_deref().is_some_and(|u| !is_unit_name(u));
        if let Some((setting, _)) = units.chain(of_keys).find(|(_, unit)| is_bad(unit)) {
            return Err(refuse(setting, "must have 1 to 100 printable characters"));
        }
        match tokens.chain(keys).find(|(_, name)| !is_usable(name)) {
            Some((setting, _)) => Err(refuse(
                setting,
                "must not be empty, hold a / or a control character, or be the daemon's own name in the audit log, versand",
            )),
            None => Ok(()),
        }
    }
}

impl TokenSettings {
    /// Whether `sha256` is a digest in hexadecimal.
    fn has_digest(&self) -> bool {
        self.sha256.len() == 64 && self.sha256.bytes().all(|b| b.is_ascii_hexdigit())
    }
}
