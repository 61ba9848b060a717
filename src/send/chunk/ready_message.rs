//! A claim whose message is made and ready to be sent.

use std::sync::Arc;

use super::{
    chunk_run::ChunkRun, expiry::expired, granted_claim::GrantedClaim, transaction_report::failure,
};
use crate::{
    clock::unix_now,
    domain::{
        ledger::{RecipientNumber, Status},
        outcome::FailureReason,
    },
    mail::{smtp::Envelope, template::MessageStamp},
    store::chunks::Report,
};

/// A claim whose message is made.
pub(super) struct ReadyMessage {
    pub claimed: GrantedClaim,
    pub envelope: Arc<Envelope>,
    pub message: Vec<u8>,
}

impl ChunkRun {
    /// Makes the message of a claim, in a spare buffer if there is one.
    ///
    /// # Errors
    /// The report of the claim, if there is nothing to send.
    pub(super) fn make_message(
        &self,
        claimed: GrantedClaim,
        spare_buffers: &mut Vec<Vec<u8>>,
    ) -> Result<ReadyMessage, Report> {
        self.check_validity(&claimed)?;
        let (content, messages) = (&self.content, &self.out.messages);
        let (delivery, plan) = (&content.delivery, &content.plan);
        let (definition, date) = (&delivery.document.definition, content.wave_time.date);
        let number = RecipientNumber::of(content.at.chunk, claimed.position, plan.chunk_size).0;
        let stamp = MessageStamp {
            signer: messages.signer(&delivery.id, plan, number, false),
            ..messages.stamp(&content.at, claimed.position, definition, date)
        };
        let Some(recipient) = content.recipients.get(usize::from(claimed.position)) else {
            return Err(claimed.not_started());
        };
        let buffer = spare_buffers.pop().unwrap_or_default();
        let message = content.template.render_into(recipient, &stamp, buffer).map_err(|error| {
            let reply = format!("not sent: {} {}", error.part, error.message);
            claimed.failed(FailureReason::NotDefined.code(), 0, unix_now(), reply)
        })?;
        match Envelope::new(&self.route.envelope_from, &recipient.email, message.len()) {
            Ok(envelope) => Ok(ReadyMessage { claimed, envelope: Arc::new(envelope), message }),
            Err(reply) => Err(failure(&claimed, &reply, unix_now())),
        }
    }

    /// Checks that the validity period has not ended.
    ///
    /// # Errors
    /// The report of the claim after that end. A recipient in doubt stays in doubt: its first
    /// attempt may have been accepted.
    pub(super) fn check_validity(&self, claimed: &GrantedClaim) -> Result<(), Report> {
        let now = unix_now();
        match claimed.before.status {
            _ if now < self.content.wave_time.valid_until => Ok(()),
            Status::InDoubt => Err(claimed.report(Status::InDoubt, now, String::new())),
            _ => Err(expired(claimed)),
        }
    }
}
