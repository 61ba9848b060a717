//! Messages: a delivery's compiled template, and the stamp that makes every message unique and repeatable.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use data_encoding::{BASE32_DNSSEC, HEXLOWER};
use hmac::{Hmac, Mac, digest::InvalidLength};
use jiff::Timestamp;
use sha2::Sha256;

use crate::{
    domain::{
        delivery::{Definition, DeliveryId, Plan},
        ledger::ChunkRef,
    },
    mail::{
        address,
        links::{TokenHolder, TokenKey, TokenSigner},
        template::{MessageStamp, ProofMarks, Template, TemplateProblem},
    },
};

/// Deliveries whose templates are kept compiled at the most.
const KEPT: usize = 64;

/// Compiled templates by delivery and digest.
#[derive(Clone, Default)]
pub struct TemplateCache(Arc<Mutex<CompiledTemplates>>);

type CompiledTemplates = HashMap<(DeliveryId, String), Arc<Template>>;

impl TemplateCache {
    /// The template of a prepared delivery, compiled once.
    ///
    /// # Errors
    /// What is wrong with the content; a prepared delivery's content has no faults.
    pub fn get(
        &self,
        id: &DeliveryId,
        plan: &Plan,
        definition: &Definition,
    ) -> Result<Arc<Template>, Vec<TemplateProblem>> {
        let key = (id.clone(), plan.digest.clone());
        if let Some(template) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(template.clone());
        }
        let (tracking, limit_bytes) =
            (&plan.settings.tracking, plan.settings.message_limit_bytes());
        let template = Arc::new(Template::compile(
            &definition.sender,
            &definition.content,
            tracking,
            limit_bytes,
        )?);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(key, template.clone());
        Ok(template)
    }
}

/// The key that makes stamps, set up once.
#[derive(Clone)]
pub struct StampKey(Arc<Hmac<Sha256>>);

impl StampKey {
    /// # Errors
    /// None: HMAC takes keys of any length.
    pub fn new(secret: &[u8; 32]) -> Result<Self, InvalidLength> {
        <Hmac<Sha256> as Mac>::new_from_slice(secret).map(|mac| Self(Arc::new(mac)))
    }

    fn derive(&self, from: &str) -> [u8; 32] {
        Hmac::clone(&self.0).chain_update(from).finalize().into_bytes().into()
    }

    /// Never to be another one: a message that is tried again after an upgrade keeps its Message-ID.
    fn derive_for(&self, at: &ChunkRef, position: u16) -> [u8; 32] {
        self.derive(&format!("message\0{}\0{}\0{position}", at.delivery, at.chunk))
    }
}

#[derive(Clone)]
pub struct MessageMaker {
    pub stamps: StampKey,
    pub tokens: TokenKey,
    pub templates: TemplateCache,
}

impl MessageMaker {
    /// The stamp of a recipient's message. It depends on nothing but delivery, position, key and instant, so a retry, a second
    /// sending and the preview have the same bytes. It has no signer yet.
    pub fn stamp(
        &self,
        at: &ChunkRef,
        position: u16,
        definition: &Definition,
        date: Timestamp,
    ) -> MessageStamp {
        let bytes = self.stamps.derive_for(at, position);
        let (id, boundary) = bytes.split_at(15);
        MessageStamp {
            date,
            message_id: message_id(id, definition),
            boundary: HEXLOWER.encode(&boundary[..12]),
            signer: None,
        }
    }

    /// Makes the tokens of a recipient's message, `number` of the sending log; none where nothing is tracked.
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

    /// The Message-ID of a proof: the same for the same proof, and never that of the message itself, which a mail server would
    /// then take for a duplicate.
    pub fn proof_id(&self, definition: &Definition, digest: &str, marks: &ProofMarks) -> String {
        let proof =
            format!("proof\0{}\0{digest}\0{}\0{}", marks.of, marks.to, marks.subject_prefix);
        message_id(&self.stamps.derive(&proof)[..15], definition)
    }
}

fn message_id(id: &[u8], definition: &Definition) -> String {
    let sender = definition.sender.email.trim();
    // as it was given, if it can stand so in a header
    let sender = if sender.is_ascii() {
        Cow::Borrowed(sender)
    } else {
        Cow::Owned(address::to_ascii(sender).unwrap_or_default())
    };
    let domain = sender.rsplit_once('@').map_or("invalid", |(_, domain)| domain);
    let mut message_id =
        String::with_capacity(BASE32_DNSSEC.encode_len(id.len()) + 1 + domain.len());
    BASE32_DNSSEC.encode_append(id, &mut message_id);
    message_id.extend(["@", domain]);
    message_id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_those_of_earlier_versions() {
        let at = ChunkRef { delivery: "0123456789abcdef".parse().expect("an id"), chunk: 3 };
        let bytes = StampKey::new(&[7; 32]).expect("a key").derive_for(&at, 17);
        let (id, boundary) = bytes.split_at(15);
        assert_eq!(BASE32_DNSSEC.encode(id), "4n83pj5jtn8tloe242k8bhuo");
        assert_eq!(HEXLOWER.encode(&boundary[..12]), "0da221a4b65e367d10796ea6");
    }

    #[test]
    fn a_message_id_is_ascii_whatever_the_senders_domain() {
        let definition = |email: &str| -> Definition {
            let sender = serde_json::json!({"name": "A", "sender": {"email": email}, "content": {"subject": "s", "text": "t"}});
            serde_json::from_value(sender).expect("a definition")
        };
        for (email, domain) in [
            ("news@Shop.example", "Shop.example"),
            (" a@müller.example ", "xn--mller-kva.example"),
            ("a@b.example ", "b.example"),
        ] {
            assert_eq!(
                message_id(&[0; 15], &definition(email)),
                format!("{}@{domain}", "0".repeat(24))
            );
        }
    }
}
