//! The entry point for all who make messages: compiled templates, stamps and token signers.

use jiff::Timestamp;

use super::template_cache::TemplateCache;
use crate::{
    domain::{
        delivery::{Definition, DeliveryId, Plan},
        ledger::ChunkRef,
    },
    mail::{
        compose::{MessageStamp, ProofMarks, StampKey},
        links::{TokenHolder, TokenKey, TokenSigner},
    },
};

/// Makes the stamp and the signer of each message. All clones share the keys and the templates.
#[derive(Clone)]
pub struct MessageMaker {
    /// Derives Message-IDs and boundaries.
    pub stamps: StampKey,
    /// Signs the tokens in links.
    pub tokens: TokenKey,
    /// The compiled templates of recent deliveries.
    pub templates: TemplateCache,
}

impl MessageMaker {
    /// The stamp of a recipient's message, without a signer; see [`StampKey::stamp`].
    pub fn stamp(
        &self,
        at: &ChunkRef,
        position: u16,
        definition: &Definition,
        date: Timestamp,
    ) -> MessageStamp {
        self.stamps.stamp(at, position, definition, date)
    }

    /// The signer for the tokens of a recipient's message; `None` if nothing is tracked.
    ///
    /// `number` is the recipient number. A number of more than 32 bits gets no signer, either.
    pub fn signer(
        &self,
        id: &DeliveryId,
        plan: &Plan,
        number: u64,
        is_proof: bool,
    ) -> Option<TokenSigner> {
        let recipient =
            u32::try_from(number).ok().filter(|_| !plan.settings.tracking.url.is_empty())?;
        Some(self.tokens.signer(
            id,
            plan.generation,
            TokenHolder { preparation: plan.number, recipient, is_proof },
        ))
    }

    /// The signer for the tokens of the proof with this number; `None` if nothing is tracked.
    pub fn proof_signer(&self, id: &DeliveryId, plan: &Plan, number: u32) -> Option<TokenSigner> {
        let holder = TokenHolder::numbered_proof(plan.number, number);
        (!plan.settings.tracking.url.is_empty())
            .then(|| self.tokens.signer(id, plan.generation, holder))
    }

    /// The Message-ID of a proof; see [`StampKey::proof_id`].
    pub fn proof_id(&self, definition: &Definition, digest: &str, marks: &ProofMarks) -> String {
        self.stamps.proof_id(definition, digest, marks)
    }
}
