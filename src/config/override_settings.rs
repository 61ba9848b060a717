//! The settings that say which floors a delivery may go below.

use serde::Deserialize;

/// `[overrides]`: whether a delivery may ask for less than the configuration does.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverrideSettings {
    pub denylist: bool,
    pub fatigue: bool,
    pub tracking: bool,
}
