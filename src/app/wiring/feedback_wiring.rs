//! The wiring of the room `feedback`.

use std::sync::Arc;

use super::shared::{Parts, SharedHandles};
use crate::feedback::{
    Denylist, Feedback, HitReceiver, HitRecorder, KnownDeliveries, LinkTargets, StatisticsUpdates,
    hit_channel,
};

impl SharedHandles {
    /// The services that take feedback, and the end of the channel on which hits arrive.
    pub(in crate::app) fn feedback(&self) -> (Feedback, HitReceiver) {
        let Parts { stores, rules, daemon, config, .. } = &self.parts;
        let (sender, receiver) = hit_channel();
        let links = LinkTargets {
            deliveries: self.deliveries.clone(),
            addresses: stores.addresses.clone(),
            recipients: self.recipients.clone(),
            known: KnownDeliveries::default(),
            config: config.clone(),
        };
        let feedback = Feedback {
            denylist: Denylist {
                addresses: stores.addresses.clone(),
                redis: stores.redis.clone(),
                links: links.clone(),
            },
            links,
            hits: HitRecorder {
                sender,
                rules: rules.clone(),
                tracking: stores.tracking.clone(),
                redis: stores.redis.clone(),
                daemon: daemon.clone(),
            },
            statistics: StatisticsUpdates {
                deliveries: self.deliveries.clone(),
                tracking: stores.tracking.clone(),
                ledgers: stores.ledgers.clone(),
                audiences: stores.audiences.clone(),
                rules: rules.clone(),
                one_at_a_time: Arc::default(),
                daemon: daemon.clone(),
            },
        };
        (feedback, receiver)
    }
}
