//! TODO head

use std::sync::Arc;

use jiff::Timestamp;

use super::preview::RecipientMessage;
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

#[derive(Clone)]
pub struct RecipientMessages {
    pub audiences: AudienceStore,
    pub schedules: ScheduleStore,
    pub messages: MessageMaker,
}

impl RecipientMessages {
    /// What the message of recipient `number` is made of.
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
        // before the release: when it is due, or now
        let date = released.or(date).unwrap_or_else(|| instant(wave.due.max(unix_now())));
        let stamp = self.messages.stamp(&at, position, &delivery.document.definition, date);
        let stamp = MessageStamp {
            signer: self.messages.signer(&delivery.id, plan, number, false),
            ..stamp
        };
        Ok(RecipientMessage { number, recipient, stamp, assumed: released.is_none() })
    }

    pub(crate) fn template(
        &self,
        delivery: &Delivery,
        plan: &Plan,
    ) -> Result<Arc<Template>, StoreError> {
        let template =
            self.messages.templates.get(&delivery.id, plan, &delivery.document.definition);
        template.map_err(|_| StoreError::Damaged("the template of a prepared delivery".into()))
    }
}
