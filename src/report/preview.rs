//! The preview: the very bytes a recipient gets or got; of one in doubt with links that count for nothing.

use jiff::Timestamp;

use super::recipient_message::RecipientMessages;
use crate::{
    deliveries::{Deliveries, Refusal},
    domain::{
        audience::Recipient,
        delivery::DeliveryId,
        ledger::{ChunkRef, RecipientNumber, Status},
    },
    mail::template::MessageStamp,
    store::{StoreError, chunks::LedgerStore},
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

#[derive(Clone)]
pub struct Previews {
    pub deliveries: Deliveries,
    pub recipients: RecipientMessages,
    pub ledgers: LedgerStore,
}

impl Previews {
    /// The message of recipient `number` of the sending log; `date` is assumed before the release; if it is `None`, when
    /// its wave is due.
    pub async fn preview(
        &self,
        id: &DeliveryId,
        number: u64,
        date: Option<Timestamp>,
    ) -> Result<Preview, Refusal> {
        let delivery = self.deliveries.delivery_with_logs(id).await?;
        let plan = delivery.document.plan.as_ref().ok_or(NOT_PREPARED)?;
        let template = self.recipients.template(&delivery, plan)?;
        let RecipientMessage { recipient, mut stamp, assumed, .. } =
            self.recipients.find(&delivery, plan, number, date).await?;
        let (chunk, position) =
            RecipientNumber(number).place_in(plan).ok_or(Refusal::NoRecipient)?;
        let statuses = self
            .ledgers
            .statuses(&[(ChunkRef { delivery: delivery.id.clone(), chunk }, position)])
            .await?;
        if statuses.first().is_some_and(|(status, _)| *status == Status::InDoubt) {
            // whoever looks at it to decide must not be taken for the recipient, which would settle it
            stamp.signer = self.recipients.messages.signer(&delivery.id, plan, number, true);
        }
        let message = template.render(&recipient, &stamp);
        let message =
            message.map_err(|e| StoreError::Damaged(format!("{}: {}", e.part, e.message)))?;
        Ok(Preview { message, date: stamp.date, assumed })
    }
}
