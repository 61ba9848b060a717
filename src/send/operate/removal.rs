//! Removes the stored parts of a delivery: slices, ledgers, tracking, indexed messages.

use std::collections::BTreeSet;

use crate::{
    config::Config,
    deliveries::Deliveries,
    domain::{
        audience::{AddressKey, Recipient},
        delivery::DeliveryId,
    },
    live::Live,
    mail::address_key,
    store::{
        StoreError,
        addresses::AddressStore,
        audience::{AudienceStore, SliceKind},
        chunks::LedgerStore,
        tracking::{PreparationRef, TrackingStore},
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
    pub config: Live<Config>,
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
    ///
    /// The keys of the addresses stay for the opt-out links if the messages were sent.
    pub(crate) async fn remove_older(
        &self,
        id: &DeliveryId,
        upload: u32,
        generation: u32,
    ) -> Result<(), StoreError> {
        let before = self.addresses.prepared_before(id, generation).await?;
        let sent = self.sent_preparation(id).await?;
        let mut buckets = BTreeSet::new();
        for (number, chunks) in &before {
            for chunk in 0..*chunks {
                // if a slice is missing, an earlier removal took its messages and then the slice;
                // a slice that cannot be read leaves its messages in the index
                let recipients: Vec<Recipient> =
                    match self.audiences.slice(id, SliceKind::Chunks(*number), chunk).await {
                        Err(StoreError::Damaged(_) | StoreError::Altered(_)) => continue,
                        other => other?,
                    };
                let keys: Vec<Option<AddressKey>> =
                    recipients.iter().map(|one| address_key(&one.email).ok()).collect();
                if let Some((preparation, of)) =
                    sent.as_ref().filter(|(_, of)| of.generation == *number)
                {
                    let seconds = self.config.now().retention.opt_outs_s();
                    self.addresses
                        .keep_addresses((*preparation, of), chunk, &keys, seconds)
                        .await?;
                }
                buckets.extend(keys.into_iter().flatten().map(AddressKey::bucket));
            }
        }
        let generations: Vec<u32> = before.into_iter().map(|(number, _)| number).collect();
        self.addresses.remove_messages(id, &generations, &buckets).await?;
        self.audiences.remove_older(id, upload, generation).await
    }

    /// The preparation whose messages were sent with links, and its number.
    async fn sent_preparation(
        &self,
        id: &DeliveryId,
    ) -> Result<Option<(u32, PreparationRef)>, StoreError> {
        let Some(delivery) = self.deliveries.store.delivery(id).await? else { return Ok(None) };
        let has_started = delivery.document.has_started();
        let sent = delivery.document.plan.filter(|plan| {
            has_started && plan.number > 0 && !plan.settings.tracking.url.is_empty()
        });
        Ok(sent.map(|plan| {
            let (generation, chunk_size) = (plan.generation, plan.chunk_size);
            (plan.number, PreparationRef { delivery: id.clone(), generation, chunk_size })
        }))
    }
}
