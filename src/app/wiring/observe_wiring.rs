//! The wiring of the room `observe`.

use super::shared::{Parts, SharedHandles};
use crate::observe::{
    ConservationCheck, DeliveryGauges, Gauges, Observation, QueueGauges, RatioGauges, WaveGauges,
};

impl SharedHandles {
    /// The gauges and the check of the figures.
    pub(in crate::app) fn observation(&self) -> Observation {
        let Parts { stores, queue, relays, health, config, .. } = &self.parts;
        let waves =
            WaveGauges { deliveries: self.deliveries.clone(), schedules: stores.schedules.clone() };
        Observation {
            gauges: Gauges {
                relays: relays.clone(),
                acceptances: self.acceptances.clone(),
                queues: QueueGauges {
                    queue: queue.clone(),
                    health: health.clone(),
                    liveness: self.liveness.clone(),
                },
                deliveries: DeliveryGauges {
                    deliveries: self.deliveries.clone(),
                    ledgers: stores.ledgers.clone(),
                    chunks: stores.chunks.clone(),
                    waves: waves.clone(),
                },
                waves,
                conservation: ConservationCheck {
                    deliveries: self.deliveries.clone(),
                    recounts: self.recounts.clone(),
                    differences: Default::default(),
                },
                config: config.clone(),
            },
            ratios: RatioGauges {
                deliveries: self.deliveries.clone(),
                tracking: stores.tracking.clone(),
                ratios: Default::default(),
            },
        }
    }
}
