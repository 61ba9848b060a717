//! The names of units.

use super::shown_text::misleads;

/// Most characters of the name of a unit.
const LONGEST_UNIT: usize = 100;

/// Whether a text can be the name of a unit.
pub fn is_unit_name(unit: &str) -> bool {
    !unit.trim().is_empty() && unit.chars().count() <= LONGEST_UNIT && !unit.contains(misleads)
}
