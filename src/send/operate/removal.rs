//! Removes the stored parts of a delivery: slices, ledgers, tracking, indexed messages.

use std::collections::BTreeSet;

use crate::{
    deliveries::Deliveries,
    domain::{audience::Recipient, delivery::DeliveryId},
    mail::address_key,
    store::{
        StoreError,
        addresses::AddressStore,
        audience::{AudienceStore, SliceKind},
        chunks::LedgerStore,
        tracking::TrackingStore,
    },
};

/// Removes stored parts. Each step may be cut off and repeated.
#[derive(Clone)]
pub struct Removal {
    pub deliveries: Deliveries,
    pub audiences: AudienceStore,
    pub addresses: AddressStore,
    pub ledgers: LedgerStore,
    pub tracking: TrackingStore,
}

impl Removal {
    /// Removes everything that a deleted delivery still has. The delivery stays listed until that
    /// is done, so that the index sweep finds it.
    pub(crate) async fn remove_deleted(&self, id: &DeliveryId) -> Result<(), StoreError> {
        let chunks = self
            .deliveries
            .store
            .delivery(id)
            .await?
            .and_then(|d| d.document.plan)
            .map_or(0, |plan| plan.chunks);
        self.remove_older(id, u32::MAX, u32::MAX).await?;
        self.ledgers.remove_ledgers(id, chunks).await?;
        self.tracking.remove_tracking(id).await?;
        self.tracking.remove_statistics(id).await?;
        self.deliveries.store.unlist(id).await
    }

    /// Removes the slices of uploads before `upload` and of preparations before `generation`, and
    /// the messages of these preparations from the index.
    pub(crate) async fn remove_older(
        &self,
        id: &DeliveryId,
        upload: u32,
        generation: u32,
    ) -> Result<(), StoreError> {
        let before = self.addresses.prepared_before(id, generation).await?;
        let mut buckets = BTreeSet::new();
        for (number, chunks) in &before {
            for chunk in 0..*chunks {
                // a missing slice was removed before, and its messages before the slice
                let recipients: Vec<Recipient> =
                    match self.audiences.slice(id, SliceKind::Chunks(*number), chunk).await {
                        Err(StoreError::Damaged(_) | StoreError::Altered(_)) => continue,
                        other => other?,
                    };
                let keys = recipients.iter().filter_map(|one| address_key(&one.email).ok());
                buckets.extend(keys.map(|address| address.bucket()));
            }
        }
        let generations: Vec<u32> = before.into_iter().map(|(number, _)| number).collect();
        self.addresses.remove_messages(id, &generations, &buckets).await?;
        self.audiences.remove_older(id, upload, generation).await
    }
}
