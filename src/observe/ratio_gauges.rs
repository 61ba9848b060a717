//! The ratios of the most recent deliveries, such as opens per delivered message.

use crate::{
    deliveries::Deliveries,
    domain::tracking::Statistics,
    metrics::DeliveryRatios,
    store::{StoreError, tracking::TrackingStore},
};

/// The number of deliveries whose ratios are exported.
const RECENT: usize = 20;
/// The number of newest deliveries among which those with statistics are looked for.
const RECENT_AMONG: usize = 200;

/// Exports the ratios of the most recent deliveries.
#[derive(Clone)]
pub struct RatioGauges {
    pub deliveries: Deliveries,
    pub tracking: TrackingStore,
    pub ratios: DeliveryRatios,
}

impl RatioGauges {
    /// The task: exports the ratios of the most recent deliveries that have statistics.
    ///
    /// Every daemon exports the same ratios. Returns false if Redis does not answer, or if the
    /// statistics of a delivery are damaged in Redis.
    pub async fn observe(&self) -> bool {
        match self.recent().await {
            Ok(recent) => {
                self.ratios.show(&recent);
                true
            }
            Err(error) => {
                tracing::debug!(%error, "the ratios of deliveries cannot be observed");
                false
            }
        }
    }

    async fn recent(&self) -> Result<Vec<(String, Statistics)>, StoreError> {
        let ids = self.deliveries.store.delivery_ids(0, RECENT_AMONG).await?;
        let recent = self.tracking.all_statistics(&ids).await?.into_iter().take(RECENT);
        Ok(recent.map(|(id, statistics)| (id.to_string(), statistics)).collect())
    }
}
