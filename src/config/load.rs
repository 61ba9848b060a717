//! Loads the settings: the defaults, then a file, then the environment.

use std::path::{Path, PathBuf};

use super::{
    config_error::{ConfigError, refuse},
    relay_list,
    sections::{Config, LogFormat, LogSettings},
};

/// `config/default.toml`, compiled in: every setting and its default.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

impl Config {
    /// Reads the defaults, `file` and the environment (`VERSAND__SECTION__SETTING`), in this order.
    ///
    /// # Errors
    /// The file cannot be read, an environment variable has a mistyped prefix, or a setting cannot
    /// be used. The error names the file, the variable or the first such setting.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mistyped = |name: &str| name.starts_with("VERSAND_") && !name.starts_with("VERSAND__");
        if let Some(name) = std::env::vars_os()
            .filter_map(|(name, _)| name.into_string().ok())
            .find(|name| mistyped(name))
        {
            return Err(refuse(
                name,
                "names no setting: write two underscores, as in VERSAND__RELAY__HOST",
            ));
        }
        let mut builder = config::Config::builder()
            .add_source(config::File::from_str(DEFAULTS, config::FileFormat::Toml));
        if let Some(path) = file {
            let text =
                std::fs::read_to_string(path).map_err(|e| refuse(path.display().to_string(), e))?;
            builder = builder.add_source(config::File::from_str(&text, config::FileFormat::Toml));
        }
        Self::build(builder.add_source(environment()))
    }

    /// The section `log` alone, also if other settings are unusable: their fault must be logged,
    /// too. What cannot be read of the file or the environment is left out.
    pub fn log_settings(file: Option<&Path>) -> LogSettings {
        let defaults = || config::File::from_str(DEFAULTS, config::FileFormat::Toml);
        let text = file.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let own = config::File::from_str(&text, config::FileFormat::Toml);
        let log_of = |builder: config::ConfigBuilder<config::builder::DefaultState>| {
            builder.add_source(environment()).build()?.get::<LogSettings>("log")
        };
        log_of(config::Config::builder().add_source(defaults()).add_source(own))
            .or_else(|_| log_of(config::Config::builder().add_source(defaults())))
            .unwrap_or_else(|_| LogSettings { format: LogFormat::Text, level: "info".into() })
    }

    /// The settings from TOML text over the defaults, without a file or the environment.
    ///
    /// # Errors
    /// As for [`Config::load`].
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let empty = config::Environment::with_prefix("VERSAND").source(Some(config::Map::new()));
        Self::build(
            config::Config::builder()
                .add_source(config::File::from_str(DEFAULTS, config::FileFormat::Toml))
                .add_source(config::File::from_str(text, config::FileFormat::Toml))
                .add_source(empty),
        )
    }

    fn build(
        builder: config::ConfigBuilder<config::builder::DefaultState>,
    ) -> Result<Self, ConfigError> {
        let merged = builder.build().map_err(|e| refuse("configuration", e))?;
        // The detour over JSON gives errors that say which type is expected.
        let mut merged: serde_json::Value =
            merged.try_deserialize().map_err(|e| refuse("configuration", e))?;
        relay_list::inherit(&mut merged);
        let mut config: Self = serde_path_to_error::deserialize(merged.clone())
            .map_err(|e| refuse(e.path().to_string(), e.inner()))?;
        if config.server.state_dir.as_os_str().is_empty() {
            config.server.state_dir = std::env::var_os("STATE_DIRECTORY")
                .map_or_else(|| "/var/lib/versand".into(), PathBuf::from);
        }
        config.check()?;
        config.values = merged;
        Ok(config)
    }
}

/// The device and inode of the socket that systemd connected to the journal.
pub fn journal_stream() -> Option<String> {
    std::env::var_os("JOURNAL_STREAM")?.into_string().ok()
}

/// The settings in the environment.
fn environment() -> config::Environment {
    config::Environment::with_prefix("VERSAND")
        .prefix_separator("__")
        .separator("__")
        .try_parsing(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_inherits_from_the_default_relay() {
        let text = "[relay]\nhost = \"a.example\"\nconnections = 7\n\
            [[relays]]\nname = \"one\"\nport = 2525\n\
            [[relays]]\nname = \"two\"\nhost = \"b.example\"\nweight = 0\n\
            sender_domains = [\"x.example\"]\n";
        let config = Config::from_toml(text).expect("good settings");
        let relays = config.relays();
        let of = |i: usize| {
            let (at, relay) = &relays[i];
            let (name, host) = (relay.name.as_str(), relay.host.as_str());
            (at.as_str(), name, host, relay.port, relay.connections, relay.weight)
        };
        assert_eq!(of(0), ("relays[0]", "one", "a.example", 2525, 7, 1));
        assert_eq!(of(1), ("relays[1]", "two", "b.example", 25, 7, 0));
        assert_eq!((relays.len(), relays[1].1.sender_domains.len()), (2, 1));
    }

    #[test]
    fn without_relays_the_default_relay_is_used() {
        let config = Config::from_toml("[relay]\nhost = \"a.example\"").expect("good settings");
        let relays = config.relays();
        assert_eq!(
            (relays.len(), relays[0].0.as_str(), relays[0].1.name.as_str()),
            (1, "relay", "default")
        );
    }
}
