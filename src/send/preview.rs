//! The preview: the very bytes a recipient gets or got.

use jiff::Timestamp;

use super::{Context, Refusal, settle::locate};
use crate::{
    domain::{id::DeliveryId, recipient::Recipient},
    store::{StoreError, ledgers::ChunkRef, slices::Part},
};

/// A message as it is sent, and the instant it says it was written.
#[derive(Debug, Clone)]
pub struct Preview {
    pub message: Vec<u8>,
    pub date: Timestamp,
    /// The delivery was not released yet: `date` is assumed.
    pub assumed: bool,
}

impl Context {
    /// The message of recipient `number` of the sending log; `date` is assumed before the release, now if it is `None`.
    pub async fn preview(&self, id: &DeliveryId, number: u64, date: Option<Timestamp>) -> Result<Preview, Refusal> {
        let delivery = self.delivery(id).await?;
        let plan = delivery.document.plan.as_ref().ok_or(Refusal::Conflict("it is not prepared"))?;
        let (chunk, position) = locate(plan, number).ok_or(Refusal::NoRecipient)?;
        let definition = &delivery.document.definition;
        let limit = plan.settings.message_limit_bytes();
        let template = self.templates.get(id, &plan.digest, definition, limit);
        let template = template.map_err(|_| StoreError::Damaged("the template of a prepared delivery".into()))?;
        let at = ChunkRef { delivery: id.clone(), chunk };
        let recipient: Option<Recipient> = self.store.item(&at, Part::Chunks(plan.generation), position).await?;
        let released = delivery.document.release.as_ref().map(|release| release.released_at);
        let now = Timestamp::now();
        let date = released.or(date).unwrap_or(Timestamp::from_second(now.as_second()).unwrap_or(now));
        let stamp = self.stamp(&at, position, definition, date);
        let message = template.render(&recipient.ok_or(Refusal::NoRecipient)?, &stamp);
        let message = message.map_err(|e| StoreError::Damaged(format!("{}: {}", e.part, e.message)))?;
        Ok(Preview { message, date, assumed: released.is_none() })
    }
}
