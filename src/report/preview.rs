//! The preview: the very bytes a recipient gets or got; of one in doubt with links that count for nothing.

use std::sync::Arc;

use jiff::Timestamp;

use crate::{
    deliveries::{Context, Refusal, unix_now},
    domain::{
        audience::Recipient,
        delivery::{Delivery, DeliveryId, Plan},
        ledger::Status,
    },
    mail::template::{MessageStamp, Template},
    send::{operate::locate, release::instant},
    store::{StoreError, audience::SliceKind, chunks::ChunkRef},
};

/// A message as it is sent, and the instant it says it was written.
#[derive(Debug, Clone)]
pub struct Preview {
    pub message: Vec<u8>,
    pub date: Timestamp,
    /// The delivery was not released yet: `date` is assumed.
    pub assumed: bool,
}

/// A recipient with all that makes its message.
pub struct RecipientMessage {
    pub number: u64,
    pub recipient: Recipient,
    pub stamp: MessageStamp,
    /// As in [`Preview`].
    pub assumed: bool,
}

pub const NOT_PREPARED: Refusal = Refusal::Conflict("it is not prepared");

impl Context {
    /// The message of recipient `number` of the sending log; `date` is assumed before the release; if it is `None`, when
    /// its wave is due.
    pub async fn preview(&self, id: &DeliveryId, number: u64, date: Option<Timestamp>) -> Result<Preview, Refusal> {
        let delivery = self.delivery_with_logs(id).await?;
        let plan = delivery.document.plan.as_ref().ok_or(NOT_PREPARED)?;
        let template = self.prepared_template(&delivery, plan)?;
        let RecipientMessage { recipient, mut stamp, assumed, .. } = self.letter(&delivery, plan, number, date).await?;
        let (chunk, position) = locate(plan, number).ok_or(Refusal::NoRecipient)?;
        let statuses = self.store.statuses(&[(ChunkRef { delivery: delivery.id.clone(), chunk }, position)]).await?;
        if statuses.first().is_some_and(|(status, _)| *status == Status::InDoubt) {
            // whoever looks at it to decide must not be taken for the recipient, which would settle it
            stamp.signer = self.signer(&delivery.id, plan, number, true);
        }
        let message = template.render(&recipient, &stamp);
        let message = message.map_err(|e| StoreError::Damaged(format!("{}: {}", e.part, e.message)))?;
        Ok(Preview { message, date: stamp.date, assumed })
    }

    /// What the message of recipient `number` is made of.
    pub(crate) async fn letter(
        &self,
        delivery: &Delivery,
        plan: &Plan,
        number: u64,
        date: Option<Timestamp>,
    ) -> Result<RecipientMessage, Refusal> {
        let (chunk, position) = locate(plan, number).ok_or(Refusal::NoRecipient)?;
        let at = ChunkRef { delivery: delivery.id.clone(), chunk };
        let recipient: Option<Recipient> = self.store.item(&at, SliceKind::Chunks(plan.generation), position).await?;
        let recipient = recipient.ok_or(Refusal::NoRecipient)?;
        let wave = self.store.wave_of(&at, plan).await?;
        let released = wave.state.is_released().then(|| instant(wave.released_at));
        // before the release: when it is due, or now
        let date = released.or(date).unwrap_or_else(|| instant(wave.due.max(unix_now())));
        let stamp = self.stamp(&at, position, &delivery.document.definition, date);
        let stamp = MessageStamp { signer: self.signer(&delivery.id, plan, number, false), ..stamp };
        Ok(RecipientMessage { number, recipient, stamp, assumed: released.is_none() })
    }

    pub(crate) fn prepared_template(&self, delivery: &Delivery, plan: &Plan) -> Result<Arc<Template>, StoreError> {
        let template = self.templates.get(&delivery.id, plan, &delivery.document.definition);
        template.map_err(|_| StoreError::Damaged("the template of a prepared delivery".into()))
    }
}
