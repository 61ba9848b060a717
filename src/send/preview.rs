//! The preview: the very bytes a recipient gets or got.

use jiff::Timestamp;

use super::{Context, Refusal, settle::locate, unix_now, waves::instant};
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
    /// The message of recipient `number` of the sending log; `date` is assumed before the release; if it is `None`, when
    /// its wave is due.
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
        let wave = self.store.wave_of(&at, plan).await?;
        let released = wave.state.is_released().then(|| instant(wave.released_at));
        // before the release: when it is due, or now
        let date = released.or(date).unwrap_or_else(|| instant(wave.due.max(unix_now())));
        let stamp = self.stamp(&at, position, definition, date);
        let message = template.render(&recipient.ok_or(Refusal::NoRecipient)?, &stamp);
        let message = message.map_err(|e| StoreError::Damaged(format!("{}: {}", e.part, e.message)))?;
        Ok(Preview { message, date, assumed: released.is_none() })
    }
}
