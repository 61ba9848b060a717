//! Copies: another delivery with the same content, which can never fire by surprise.

use crate::{
    deliveries::{Changed, Context, IdempotencyKey, Refusal, require},
    domain::{
        Principal, Role,
        delivery::{Audience, Definition, Delivery, DeliveryId},
        schedule::Schedule,
    },
};

impl Context {
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
        let original = if audience { self.delivery_with_logs(id).await? } else { self.delivery(id).await? };
        let mut definition = Definition { name, schedule: Schedule::Now, ..original.document.definition.clone() };
        definition.settings.request_confirmation = None;
        let created = match self.create(by, definition, key).await? {
            Changed::Now(created) | Changed::Before(created) => created,
        };
        let copy = self.delivery(&created.id).await?;
        match (&original.document.audience, &copy.document.audience) {
            // a repeat does what a crash left undone
            (Some(stored), None) if audience => self.copy_audience(by, id, stored, &copy.id).await?,
            _ => {}
        }
        self.delivery(&created.id).await
    }

    /// Gives a delivery the stored audience of another one.
    pub(super) async fn copy_audience(
        &self,
        by: &Principal,
        from: &DeliveryId,
        stored: &Audience,
        to: &DeliveryId,
    ) -> Result<(), Refusal> {
        let upload = self.begin_upload(by, to).await?;
        self.store.copy_upload((from, stored.upload), (to, upload), stored.slices).await?;
        self.adopt_upload(by, to, &Audience { upload, ..stored.clone() }).await
    }
}
