//! The settings of the daemon: embedded defaults, then a file, then the environment.
//!
//! [`Config::load`] merges the three sources and checks the result, at the start and at each
//! reload. Every other room gets a checked [`Config`] or one of its sections, and checks nothing
//! again.
//!
//! - `config/default.toml` holds every setting, its default and its meaning. It is compiled in as
//!   [`DEFAULTS`], and `docs/reference/settings.md` repeats it.
//! - Each section of the file is a struct here: [`SendSettings`] is `[send]`, and so on. Its fields
//!   have the names of the settings. `check` and the files of the sections check the ranges.
//! - [`ConfigError`] names the one setting that stops the start or a reload.
//! - [`SettingChange`] says what another load changes, and whether that needs a restart.
//! - [`secret`] reads a password or a key from the file that a setting names.
//!
//! Settings of one delivery are not here: see [`crate::domain::delivery::SettingOverrides`]. The
//! command line is in [`crate::cli`].

mod changes;
mod check;
mod config_error;
mod load;
mod optional_address;
mod override_settings;
mod ranges;
mod relay_list;
mod retention_settings;
mod secret_file;
mod sections;
mod throttle_settings;
mod tracking_settings;

pub use changes::{LIVE_SETTINGS, SettingChange};
pub use config_error::ConfigError;
pub use load::{DEFAULTS, journal_stream};
pub use override_settings::OverrideSettings;
pub use relay_list::{RelaySettings, Tls};
pub use retention_settings::RetentionSettings;
pub use secret_file::secret;
pub use sections::{
    AuthSettings, CatcherSettings, Config, FatigueSettings, JwtKeySettings, KeepReplies, LogFormat,
    LogSettings, PreparationSettings, QueueSettings, RedisSettings, SendSettings, ServerSettings,
    TokenSettings,
};
pub use throttle_settings::{BreakerSettings, DomainLimit, ThrottleSettings};
pub use tracking_settings::{PublicSettings, TrackingSettings};
