//! Copies a delivery without its schedule: a copy can never be sent by surprise.

use super::{definitions::Definitions, uploads::Uploads};
use crate::{
    deliveries::{Actor, Changed, Deliveries, IdempotencyKey, Refusal, require},
    domain::{
        Principal, Role,
        delivery::{Audience, Definition, Delivery, DeliveryId},
        schedule::Schedule,
    },
    store::audience::AudienceStore,
};

/// Makes copies of deliveries and of stored audiences.
#[derive(Clone)]
pub struct Copies {
    pub deliveries: Deliveries,
    pub definitions: Definitions,
    pub uploads: Uploads,
    pub audiences: AudienceStore,
}

impl Copies {
    /// Creates a delivery with the definition of another one, except its name, its schedule and the
    /// setting `request_confirmation`. With `audience` the copy gets the stored audience, too.
    ///
    /// The copy must be prepared and confirmed like any other delivery.
    ///
    /// # Errors
    /// If the principal lacks the role; if the original or, with `audience`, its logs are gone.
    pub async fn copy(
        &self,
        by: &Principal,
        id: &DeliveryId,
        name: String,
        audience: bool,
        key: Option<&IdempotencyKey>,
    ) -> Result<Delivery, Refusal> {
        require(by, Role::PrepareDeliveries)?;
        let original = if audience {
            self.deliveries.delivery_with_logs(id).await?
        } else {
            self.deliveries.delivery(id).await?
        };
        Actor::from(by).check(&original)?;
        let by = &by.expecting_nothing();
        let mut definition =
            Definition { name, schedule: Schedule::Now, ..original.document.definition.clone() };
        definition.settings.request_confirmation = None;
        let created = match self.definitions.create(by, definition, key).await? {
            Changed::Now(created) | Changed::Before(created) => created,
        };
        let copy = self.deliveries.delivery(&created.id).await?;
        match (&original.document.audience, &copy.document.audience) {
            // a repeated request also does what a crash left undone
            (Some(stored), None) if audience => {
                self.copy_audience(by, id, stored, &copy.id).await?
            }
            _ => {}
        }
        self.deliveries.delivery(&created.id).await
    }

    /// Gives a delivery the stored audience of another one.
    pub(super) async fn copy_audience(
        &self,
        by: &Principal,
        from: &DeliveryId,
        stored: &Audience,
        to: &DeliveryId,
    ) -> Result<(), Refusal> {
        let (upload, _) = self.uploads.begin_upload(by, to).await?;
        self.audiences.copy_upload((from, stored.upload), (to, upload), stored.slices).await?;
        self.uploads.adopt_upload(by, to, &Audience { upload, ..stored.clone() }).await?;
        Ok(())
    }
}
