//! Finds the message of one recipient: its fields, its stamp and its template.

use std::sync::Arc;

use jiff::Timestamp;

use crate::{
    clock::unix_now,
    deliveries::Refusal,
    domain::{
        audience::Recipient,
        delivery::{Delivery, Plan},
        instant,
        ledger::{ChunkRef, RecipientNumber},
    },
    mail::{
        MessageMaker,
        template::{MessageStamp, Template},
    },
    store::{
        StoreError,
        audience::{AudienceStore, SliceKind},
        schedule::ScheduleStore,
    },
};

/// The refusal of a delivery that has no plan.
pub const NOT_PREPARED: Refusal = Refusal::Conflict("the delivery is not prepared");

/// A recipient with everything that makes the message.
pub struct RecipientMessage {
    /// Recipient number.
    pub number: u64,
    pub recipient: Recipient,
    pub stamp: MessageStamp,
    /// The wave is not released yet, so the date in the stamp is assumed.
    pub assumed: bool,
}

/// Finds the messages of recipients.
#[derive(Clone)]
pub struct RecipientMessages {
    pub audiences: AudienceStore,
    pub schedules: ScheduleStore,
    pub messages: MessageMaker,
}

impl RecipientMessages {
    /// Finds the recipient with this number. `date` is assumed before the release of its wave.
    ///
    /// # Errors
    /// [`Refusal::NoRecipient`] if the number is too large; if Redis does not answer.
    pub(crate) async fn find(
        &self,
        delivery: &Delivery,
        plan: &Plan,
        number: u64,
        date: Option<Timestamp>,
    ) -> Result<RecipientMessage, Refusal> {
        let (chunk, position) =
            RecipientNumber(number).place_in(plan).ok_or(Refusal::NoRecipient)?;
        let at = ChunkRef { delivery: delivery.id.clone(), chunk };
        let recipient: Option<Recipient> =
            self.audiences.item(&at, SliceKind::Chunks(plan.generation), position).await?;
        let recipient = recipient.ok_or(Refusal::NoRecipient)?;
        let wave = self.schedules.wave_of(&at, plan).await?;
        let released = wave.state.is_released().then(|| instant(wave.released_at));
        // before the release the due instant is assumed, or now if it is past
        let date = released.or(date).unwrap_or_else(|| instant(wave.due.max(unix_now())));
        let stamp = self.messages.stamp(&at, position, &delivery.document.definition, date);
        let stamp = MessageStamp {
            signer: self.messages.signer(&delivery.id, plan, number, false),
            ..stamp
        };
        Ok(RecipientMessage { number, recipient, stamp, assumed: released.is_none() })
    }

    /// The compiled template of a prepared delivery.
    ///
    /// # Errors
    /// If the template does not compile although the preparation compiled it.
    pub(crate) async fn template(
        &self,
        delivery: &Delivery,
        plan: &Plan,
    ) -> Result<Arc<Template>, StoreError> {
        let templates = &self.messages.templates;
        let template = templates.get(&delivery.id, plan, &delivery.document.definition).await;
        template.map_err(|_| StoreError::Damaged("the template of a prepared delivery".into()))
    }

    /// Runs the rendering of one message beside the tasks of the daemon.
    ///
    /// # Errors
    /// If the thread breaks off.
    pub(crate) async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let done = self.messages.templates.threads.run(work).await;
        done.map_err(|error| StoreError::Damaged(error.to_string()))
    }
}
