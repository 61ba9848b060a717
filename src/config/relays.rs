//! The relays among the settings: what `[[relays]]` takes from `[relay]`, and what must hold of each.

use std::collections::HashSet;

use serde_json::Value;

use super::{
    settings::{Config, ConfigError, RelaySettings, Tls, refuse},
    throttles::is_rate,
};

/// A relay that leaves a setting out has that of `[relay]`, but for its name.
pub(super) fn inherit(merged: &mut Value) {
    let Some(defaults) = merged.get("relay").and_then(Value::as_object).cloned() else { return };
    for relay in merged.get_mut("relays").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(relay) = relay.as_object_mut() else { continue };
        for (setting, value) in defaults.iter().filter(|(setting, _)| *setting != "name") {
            relay.entry(setting).or_insert_with(|| value.clone());
        }
    }
}

impl Config {
    /// The relays in use, each with what an error calls it: `[[relays]]`, or `[relay]` where there are none.
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

    pub(super) fn check_relays(&self) -> Result<(), ConfigError> {
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

impl RelaySettings {
    fn check_ranges(&self, at: &str) -> Result<(), ConfigError> {
        let ranges: [(&str, u64, u64, u64); 10] = [
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
        ];
        for (setting, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return Err(refuse(
                    format!("{at}.{setting}"),
                    format!("must be {least}..{most}, is {value}"),
                ));
            }
        }
        if !is_rate(self.messages_per_second) {
            return Err(refuse(
                format!("{at}.messages_per_second"),
                "must be 0, or 0.001 to 1000000",
            ));
        }
        if self.total_connections > 100_000 {
            return Err(refuse(format!("{at}.total_connections"), "must be 0 to 100000"));
        }
        // it is a label of metrics, and stands in logs
        let is_label = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        match (1..=64).contains(&self.name.len()) && self.name.bytes().all(is_label) {
            true => Ok(()),
            false => Err(refuse(
                format!("{at}.name"),
                "must be 1 to 64 of the ASCII letters, digits, -, _ and .",
            )),
        }
    }

    fn check_login(&self, at: &str) -> Result<(), ConfigError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_relay_leaves_out_it_has_from_the_default_relay() {
        let text = "[relay]\nhost = \"a.example\"\nconnections = 7\n\
            [[relays]]\nname = \"one\"\nport = 2525\n\
            [[relays]]\nname = \"two\"\nhost = \"b.example\"\nweight = 0\nsender_domains = [\"x.example\"]\n";
        let config = Config::from_toml(text).expect("good settings");
        let relays = config.relays();
        let of = |i: usize| {
            let (at, relay) = &relays[i];
            (
                at.as_str(),
                relay.name.as_str(),
                relay.host.as_str(),
                relay.port,
                relay.connections,
                relay.weight,
            )
        };
        assert_eq!(of(0), ("relays[0]", "one", "a.example", 2525, 7, 1));
        assert_eq!(of(1), ("relays[1]", "two", "b.example", 25, 7, 0));
        assert_eq!((relays.len(), relays[1].1.sender_domains.len()), (2, 1));
    }

    #[test]
    fn without_relays_the_default_one_is_used() {
        let config = Config::from_toml("[relay]\nhost = \"a.example\"").expect("good settings");
        let relays = config.relays();
        assert_eq!(
            (relays.len(), relays[0].0.as_str(), relays[0].1.name.as_str()),
            (1, "relay", "default")
        );
    }
}
