//! The preview: the bytes that a recipient gets or got.

use jiff::Timestamp;

use super::recipient_message::{NOT_PREPARED, RecipientMessage, RecipientMessages};
use crate::{
    deliveries::{Deliveries, Refusal},
    domain::{
        delivery::DeliveryId,
        ledger::{ChunkRef, RecipientNumber, Status},
    },
    store::{StoreError, chunks::LedgerStore},
};

/// A message as it is sent.
#[derive(Debug, Clone)]
pub struct Preview {
    pub message: Vec<u8>,
    /// The instant in its `Date` header.
    pub date: Timestamp,
    /// The wave is not released yet, so `date` is assumed.
    pub assumed: bool,
}

/// Makes previews.
#[derive(Clone)]
pub struct Previews {
    pub deliveries: Deliveries,
    pub recipients: RecipientMessages,
    pub ledgers: LedgerStore,
}

impl Previews {
    /// The message of the recipient with this number.
    ///
    /// If its wave is not released yet, the message gets `date`. Without `date` it gets the due
    /// instant, or the present one if that is past. If the recipient is in doubt, hits on the links
    /// of the preview do not count.
    ///
    /// # Errors
    /// If the delivery or its logs are gone, the delivery is not prepared, or there is no such
    /// recipient.
    pub async fn preview(
        &self,
        id: &DeliveryId,
        number: u64,
        date: Option<Timestamp>,
    ) -> Result<Preview, Refusal> {
        let delivery = self.deliveries.delivery_with_logs(id).await?;
        let plan = delivery.document.plan.as_ref().ok_or(NOT_PREPARED)?;
        let template = self.recipients.template(&delivery, plan).await?;
        let RecipientMessage { recipient, mut stamp, assumed, .. } =
            self.recipients.find(&delivery, plan, number, date).await?;
        let (chunk, position) =
            RecipientNumber(number).place_in(plan).ok_or(Refusal::NoRecipient)?;
        let statuses = self
            .ledgers
            .statuses(&[(ChunkRef { delivery: delivery.id.clone(), chunk }, position)])
            .await?;
        if statuses.first().is_some_and(|(status, _)| *status == Status::InDoubt) {
            // a hit of the person who looks at the preview must not count, because a hit of the
            // recipient resolves the doubt
            stamp.signer = self.recipients.messages.signer(&delivery.id, plan, number, true);
        }
        let date = stamp.date;
        let message = self.recipients.apart(move || template.render(&recipient, &stamp)).await?;
        let message =
            message.map_err(|e| StoreError::Damaged(format!("{}: {}", e.part, e.message)))?;
        Ok(Preview { message, date, assumed })
    }
}
