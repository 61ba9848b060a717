//! Observation: the gauges that a daemon sets, and the check that no recipient was lost.
//!
//! Every daemon sets the gauges of all deliveries and queues. Its figures of a relay count only
//! its own connections and messages.
//!
//! Entry points:
//! - [`Observation`]: all of this room, for the scheduler;
//! - [`Gauges::observe`]: relays, queues, deliveries and waves, then one step of the check;
//! - [`ConservationCheck`]: compares the figures of one delivery after the other;
//! - [`RatioGauges::observe`]: the ratios of the most recent deliveries.
//!
//! Not here:
//! - names and help texts of the metrics, and counters of single events: `crate::metrics`;
//! - the recount that the check compares with: `crate::send::recover`;
//! - statistics of opens and clicks: `crate::feedback`.

mod conservation;
mod delivery_gauges;
mod gauges;
mod queue_gauges;
mod ratio_gauges;
mod wave_gauges;

pub use conservation::ConservationCheck;
pub use delivery_gauges::DeliveryGauges;
pub use gauges::Gauges;
pub use queue_gauges::QueueGauges;
pub use ratio_gauges::RatioGauges;
pub use wave_gauges::WaveGauges;

/// The services that set gauges, for the scheduler. Cheap to clone.
#[derive(Clone)]
pub struct Observation {
    pub gauges: Gauges,
    pub ratios: RatioGauges,
}
