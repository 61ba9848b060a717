//! TODO head

use crate::{
    deliveries::Deliveries, domain::tracking::Statistics, metrics::DeliveryRatios,
    store::tracking::TrackingStore,
};

/// Deliveries whose ratios are exported, and among how many of the newest they are sought.
const RECENT: usize = 20;
const RECENT_AMONG: usize = 200;

#[derive(Clone)]
pub struct RatioGauges {
    pub deliveries: Deliveries,
    pub tracking: TrackingStore,
    pub ratios: DeliveryRatios,
}

impl RatioGauges {
    /// The task: shows the ratios of the most recent deliveries that have statistics, the same on every replica.
    pub async fn observe(&self) -> bool {
        let recent = async {
            let ids = self.deliveries.store.delivery_ids(0, RECENT_AMONG).await?;
            self.tracking.all_statistics(&ids).await
        };
        match recent.await {
            Ok(recent) => {
                let recent: Vec<(String, Statistics)> = recent
                    .into_iter()
                    .take(RECENT)
                    .map(|(id, figures)| (id.to_string(), figures))
                    .collect();
                self.ratios.show(&recent);
                true
            }
            Err(error) => {
                tracing::debug!(%error, "the ratios of deliveries cannot be observed");
                false
            }
        }
    }
}
