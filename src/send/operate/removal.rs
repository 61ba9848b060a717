//! TODO head

use std::collections::BTreeSet;

use crate::{
    deliveries::Deliveries,
    domain::{
        audience::{AddressKey, Recipient, digest_of},
        delivery::DeliveryId,
    },
    mail::to_ascii,
    store::{
        StoreError,
        addresses::AddressStore,
        audience::{AudienceStore, SliceKind},
        chunks::LedgerStore,
        tracking::TrackingStore,
    },
};

#[derive(Clone)]
pub struct Removal {
    pub deliveries: Deliveries,
    pub audiences: AudienceStore,
    pub addresses: AddressStore,
    pub ledgers: LedgerStore,
    pub tracking: TrackingStore,
}

impl Removal {
    /// Removes what a tombstone still has. It stays in the index until that is done, so that the slow pass finds it.
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

    /// Removes the parts of uploads before `upload` and of preparations before `generation`, and their messages from the index.
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
                // one that a removal has begun with is gone, and its messages before it
                let recipients: Vec<Recipient> =
                    match self.audiences.slice(id, SliceKind::Chunks(*number), chunk).await {
                        Err(StoreError::Damaged(_)) => continue,
                        other => other?,
                    };
                let keys =
                    recipients.iter().filter_map(|recipient| to_ascii(&recipient.email).ok());
                buckets.extend(keys.map(|address| AddressKey::of(digest_of(&address)).bucket()));
            }
        }
        let generations: Vec<u32> = before.into_iter().map(|(number, _)| number).collect();
        self.addresses.remove_messages(id, &generations, &buckets).await?;
        self.audiences.remove_older(id, upload, generation).await
    }
}
