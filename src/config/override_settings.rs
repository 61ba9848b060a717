//! The settings that lift the floor: a delivery may then ask for less than the configuration.

use serde::Deserialize;

/// `[overrides]`: whether a delivery may ask for less than the configuration does.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverrideSettings {
    pub denylist: bool,
    pub fatigue: bool,
    pub tracking: bool,
}
