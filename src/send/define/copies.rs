//! Copies: another delivery with the same content, which can never fire by surprise.

use super::{definitions::Definitions, uploads::Uploads};
use crate::{
    deliveries::{Changed, Deliveries, IdempotencyKey, Refusal, require},
    domain::{
        Principal, Role,
        delivery::{Audience, Definition, Delivery, DeliveryId},
        schedule::Schedule,
    },
    store::audience::AudienceStore,
};

#[derive(Clone)]
pub struct Copies {
    pub deliveries: Deliveries,
    pub definitions: Definitions,
    pub uploads: Uploads,
    pub audiences: AudienceStore,
}

impl Copies {
    /// Creates a delivery with the definition of another one, but for its name and its schedule: it must be prepared, and
    /// confirmed. With `audience` it gets the stored audience, too.
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
        let mut definition =
            Definition { name, schedule: Schedule::Now, ..original.document.definition.clone() };
        definition.settings.request_confirmation = None;
        let created = match self.definitions.create(by, definition, key).await? {
            Changed::Now(created) | Changed::Before(created) => created,
        };
        let copy = self.deliveries.delivery(&created.id).await?;
        match (&original.document.audience, &copy.document.audience) {
            // a repeat does what a crash left undone
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
        let upload = self.uploads.begin_upload(by, to).await?;
        self.audiences.copy_upload((from, stored.upload), (to, upload), stored.slices).await?;
        self.uploads.adopt_upload(by, to, &Audience { upload, ..stored.clone() }).await
    }
}
