//! TODO head

pub mod conservation;
pub mod delivery_gauges;
pub mod gauges;
pub mod observation;
pub mod queue_gauges;
pub mod ratio_gauges;
pub mod wave_gauges;

pub use conservation::ConservationCheck;
pub use delivery_gauges::DeliveryGauges;
pub use gauges::Gauges;
pub use observation::Observation;
pub use queue_gauges::QueueGauges;
pub use ratio_gauges::RatioGauges;
