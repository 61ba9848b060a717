//! What the daemon tells of itself: gauges, and the check that nothing was lost.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{
    conservation::ConservationCheck, delivery_gauges::DeliveryGauges, queue_gauges::QueueGauges,
};
use crate::{
    config::Config,
    mail::smtp::Relays,
    metrics::{self, RelayFigures},
};

#[derive(Clone)]
pub struct Gauges {
    pub relays: Relays,
    pub acceptances: Arc<AtomicU64>,
    pub queues: QueueGauges,
    pub deliveries: DeliveryGauges,
    pub conservation: ConservationCheck,
    pub config: Arc<Config>,
}

impl Gauges {
    /// The task: sets the gauges.
    pub async fn observe(&self) -> bool {
        // the later figure first: what is accepted meanwhile is not recorded yet
        let recorded = self.acceptances.load(Ordering::Relaxed);
        metrics::acceptances(self.relays.accepted(), recorded);
        for relay in self.relays.all() {
            let stats = relay.stats();
            let [accepted, opened, faults] =
                [&stats.accepted, &stats.connections_opened, &stats.faults]
                    .map(|counter| counter.load(Ordering::Relaxed));
            // a single one may have been the last thing for a long time
            let is_up = relay.faults_in_a_row() < 2;
            let open = relay.open_connections();
            let figures = RelayFigures { accepted, opened, faults, open, is_up };
            metrics::relay(relay.name(), figures);
        }
        metrics::in_doubt_bound(self.relays.all_connections() * self.config.send.claim_window);
        let queues = self.queues.observe().await;
        let deliveries = async {
            self.deliveries.observe().await?;
            self.conservation.check_next().await
        };
        let deliveries = deliveries.await;
        if let Err(error) = &queues {
            tracing::debug!(%error, "the queues cannot be observed");
        }
        if let Err(error) = &deliveries {
            tracing::debug!(%error, "the deliveries cannot be observed");
        }
        queues.is_ok() && deliveries.is_ok()
    }
}
