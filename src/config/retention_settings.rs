//! The settings of retention: how long deliveries and logs are kept.

use std::{fs::DirBuilder, os::unix::fs::DirBuilderExt, path::PathBuf};

use serde::Deserialize;

use super::config_error::{ConfigError, refuse};

/// `[retention]`: how long deliveries, logs and opt-out links are kept, and where archives go.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionSettings {
    pub deliveries_days: f64,
    pub logs_days: f64,
    pub tracking_days: f64,
    pub opt_outs_days: u32,
    /// Empty: nothing is archived.
    pub archive_dir: PathBuf,
}

impl RetentionSettings {
    /// How long opt-out links work after the logs are gone, in seconds.
    pub fn opt_outs_s(&self) -> i64 {
        i64::from(self.opt_outs_days) * 86_400
    }

    /// Makes the folder of the archives if it is missing. The folder may lie in the state
    /// directory, where only the daemon may write.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn make_archive_dir(&self) -> Result<(), ConfigError> {
        if self.archive_dir.as_os_str().is_empty() {
            return Ok(());
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.archive_dir);
        made.map_err(|e| {
            refuse("retention.archive_dir", format!("{}: {e}", self.archive_dir.display()))
        })
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let all = [
            ("deliveries_days", self.deliveries_days),
            ("logs_days", self.logs_days),
            ("tracking_days", self.tracking_days),
        ];
        if let Some((name, days)) =
            all.into_iter().find(|(_, days)| !(0.0..=36_500.0).contains(days))
        {
            return Err(refuse(
                format!("retention.{name}"),
                format!("must be 0 to 36500, is {days}"),
            ));
        }
        // CAN-SPAM requires 30 days after the mail was sent, and some people read late
        if !(60..=36_500).contains(&self.opt_outs_days) {
            return Err(refuse(
                "retention.opt_outs_days",
                format!("must be 60 to 36500, is {}", self.opt_outs_days),
            ));
        }
        if self.archive_dir.exists() && !self.archive_dir.is_dir() {
            return Err(refuse("retention.archive_dir", "must be a folder, or empty"));
        }
        Ok(())
    }
}
