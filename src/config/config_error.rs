//! The error of a setting that cannot be used.

use std::fmt;

/// A setting that cannot be used. Its text is one line that names the setting.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {reason}")]
pub struct ConfigError {
    /// The setting with its section, such as `relay.port`. If the fault belongs to no single
    /// setting, this is a file, an environment variable or the word `configuration`.
    pub setting: String,
    pub reason: String,
}

/// The error for `setting`. Line ends in `reason` become spaces.
pub(super) fn refuse(setting: impl Into<String>, reason: impl fmt::Display) -> ConfigError {
    let reason = reason.to_string().replace('\n', " ");
    ConfigError { setting: setting.into(), reason }
}
