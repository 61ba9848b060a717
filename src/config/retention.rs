//! How long what is kept.

use std::path::PathBuf;

use serde::Deserialize;

use super::{Config, ConfigError, refuse};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    pub deliveries_days: f64,
    pub logs_days: f64,
    pub tracking_days: f64,
    pub archive_dir: PathBuf,
}

impl Config {
    pub(super) fn check_retention(&self) -> Result<(), ConfigError> {
        let Retention { deliveries_days, logs_days, tracking_days, archive_dir } = &self.retention;
        let all = [("deliveries_days", deliveries_days), ("logs_days", logs_days), ("tracking_days", tracking_days)];
        if let Some((name, days)) = all.into_iter().find(|(_, days)| !(0.0..=36_500.0).contains(*days)) {
            return Err(refuse(format!("retention.{name}"), format!("must be 0 to 36500, is {days}")));
        }
        if !archive_dir.as_os_str().is_empty() && !archive_dir.is_dir() {
            return Err(refuse("retention.archive_dir", "must be a folder that is there, or empty"));
        }
        Ok(())
    }
}
