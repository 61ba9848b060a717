//! How long what is kept.

use std::{fs::DirBuilder, os::unix::fs::DirBuilderExt, path::PathBuf};

use serde::Deserialize;

use super::settings::{Config, ConfigError, refuse};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionSettings {
    pub deliveries_days: f64,
    pub logs_days: f64,
    pub tracking_days: f64,
    pub archive_dir: PathBuf,
}

/// An opt-out has to work for 30 days at least after its mail was sent (CAN-SPAM), and some read late.
const OPT_OUT_DAYS: f64 = 60.0;

impl RetentionSettings {
    /// The setting, and its days, by which links to opt out end too early, if one does: with the logs it is forgotten whose they are.
    pub fn ends_opt_outs(&self) -> Option<(&'static str, f64)> {
        let all = [
            ("retention.logs_days", self.logs_days),
            ("retention.deliveries_days", self.deliveries_days),
        ];
        all.into_iter().find(|(_, days)| *days > 0.0 && *days < OPT_OUT_DAYS)
    }

    /// Makes the folder of the archives where it is missing: in a state directory that the service manager makes nobody else can.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make_archive_dir(&self) -> Result<(), ConfigError> {
        if self.archive_dir.as_os_str().is_empty() {
            return Ok(());
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.archive_dir);
        made.map_err(|e| {
            refuse("retention.archive_dir", format!("{}: {e}", self.archive_dir.display()))
        })
    }
}

impl Config {
    pub(super) fn check_retention(&self) -> Result<(), ConfigError> {
        let RetentionSettings { deliveries_days, logs_days, tracking_days, archive_dir } =
            &self.retention;
        let all = [
            ("deliveries_days", deliveries_days),
            ("logs_days", logs_days),
            ("tracking_days", tracking_days),
        ];
        if let Some((name, days)) =
            all.into_iter().find(|(_, days)| !(0.0..=36_500.0).contains(*days))
        {
            return Err(refuse(
                format!("retention.{name}"),
                format!("must be 0 to 36500, is {days}"),
            ));
        }
        if archive_dir.exists() && !archive_dir.is_dir() {
            return Err(refuse("retention.archive_dir", "must be a folder, or empty"));
        }
        Ok(())
    }
}
