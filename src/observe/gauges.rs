//! The gauges of a daemon: relays, queues, deliveries and waves.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{
    conservation::ConservationCheck, delivery_gauges::DeliveryGauges, queue_gauges::QueueGauges,
    wave_gauges::WaveGauges,
};
use crate::{
    config::Config,
    mail::smtp::Relays,
    metrics::{self, RelayFigures},
    store::StoreError,
};

/// Sets the gauges of a daemon.
#[derive(Clone)]
pub struct Gauges {
    pub relays: Relays,
    /// The number of acceptances that this process has recorded, and of accepted proofs.
    pub acceptances: Arc<AtomicU64>,
    pub queues: QueueGauges,
    pub deliveries: DeliveryGauges,
    pub waves: WaveGauges,
    pub conservation: ConservationCheck,
    pub config: Arc<Config>,
}

impl Gauges {
    /// The task: sets the gauges, and compares the figures of one delivery.
    ///
    /// Returns false if Redis does not answer, or if a delivery with waves is damaged in Redis.
    pub async fn observe(&self) -> bool {
        self.observe_relays();
        let queues = self.queues.observe().await;
        let deliveries = self.observe_deliveries().await;
        if let Err(error) = &queues {
            tracing::debug!(%error, "the queues cannot be observed");
        }
        if let Err(error) = &deliveries {
            tracing::debug!(%error, "the deliveries cannot be observed");
        }
        queues.is_ok() && deliveries.is_ok()
    }

    fn observe_relays(&self) {
        // This is read first, because the relay counts an acceptance before it is recorded. So an
        // acceptance of this moment cannot make the difference negative.
        let recorded = self.acceptances.load(Ordering::Relaxed);
        metrics::acceptances(self.relays.accepted(), recorded);
        for relay in self.relays.all() {
            let stats = relay.stats();
            let [accepted, opened, faults] =
                [&stats.accepted, &stats.connections_opened, &stats.faults]
                    .map(|counter| counter.load(Ordering::Relaxed));
            // one fault says little: it may be old, because nothing was sent since
            let is_up = relay.faults_in_a_row() < 2;
            let open = relay.open_connections();
            let figures = RelayFigures { accepted, opened, faults, open, is_up };
            metrics::relay(relay.name(), figures);
        }
        metrics::in_doubt_bound(self.relays.all_connections() * self.config.send.claim_window);
    }

    async fn observe_deliveries(&self) -> Result<(), StoreError> {
        self.deliveries.observe().await?;
        self.waves.observe().await?;
        self.conservation.check_next().await
    }
}
