//! The exclusion log: the recipients that the preparation left out, and why.

use super::Page;
use crate::{
    deliveries::{Deliveries, Refusal},
    domain::{
        audience::Exclusion,
        delivery::{Delivery, DeliveryId, Plan},
    },
    store::{
        StoreError,
        audience::{AudienceStore, SliceKind},
    },
};

/// Reads exclusion logs.
#[derive(Clone)]
pub struct ExclusionLog {
    pub deliveries: Deliveries,
    pub audiences: AudienceStore,
}

impl ExclusionLog {
    /// One slice of the log.
    ///
    /// # Errors
    /// If Redis does not answer, or the slice is damaged.
    pub async fn slice(
        &self,
        delivery: &Delivery,
        plan: &Plan,
        slice: u32,
    ) -> Result<Vec<Exclusion>, StoreError> {
        self.audiences.slice(&delivery.id, SliceKind::Exclusions(plan.generation), slice).await
    }

    /// A page from line `from` of the upload on.
    ///
    /// # Errors
    /// If the delivery or its logs are gone.
    pub async fn page(
        &self,
        id: &DeliveryId,
        from: u64,
        limit: usize,
    ) -> Result<Page<Exclusion>, Refusal> {
        let delivery = self.deliveries.delivery_with_logs(id).await?;
        let Some(plan) = &delivery.document.plan else {
            return Ok(Page { items: Vec::new(), next: None });
        };
        let mut items = Vec::new();
        for slice in 0..plan.exclusion_slices {
            for exclusion in self.slice(&delivery, plan, slice).await? {
                if exclusion.line < from {
                    continue;
                }
                if items.len() == limit {
                    return Ok(Page { items, next: Some(exclusion.line) });
                }
                items.push(exclusion);
            }
        }
        Ok(Page { items, next: None })
    }
}
