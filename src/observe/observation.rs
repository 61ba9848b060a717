//! What sets the gauges, for cron.

use super::{gauges::Gauges, ratio_gauges::RatioGauges};

/// Cheap to clone, as everything in it.
#[derive(Clone)]
pub struct Observation {
    pub gauges: Gauges,
    pub ratios: RatioGauges,
}
