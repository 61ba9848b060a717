//! Messages: a delivery's compiled template, and the stamp that makes every message unique and repeatable.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use data_encoding::{BASE32_DNSSEC, HEXLOWER};
use hmac::{Hmac, Mac, digest::InvalidLength};
use jiff::Timestamp;
use sha2::Sha256;

use super::Context;
use crate::{
    domain::{
        delivery::{Definition, Plan},
        id::DeliveryId,
    },
    mail::{
        template::{Marks, Problem, Stamp, Template},
        token::{Holder, Signer},
    },
    store::ledgers::ChunkRef,
};

/// Deliveries whose templates are kept compiled at the most.
const KEPT: usize = 64;

/// Compiled templates by delivery and digest.
#[derive(Clone, Default)]
pub struct Cache(Arc<Mutex<Compiled>>);

type Compiled = HashMap<(DeliveryId, String), Arc<Template>>;

impl Cache {
    /// The template of a prepared delivery, compiled once.
    ///
    /// # Errors
    /// What is wrong with the content; a prepared delivery's content has no faults.
    pub fn get(&self, id: &DeliveryId, plan: &Plan, definition: &Definition) -> Result<Arc<Template>, Vec<Problem>> {
        let key = (id.clone(), plan.digest.clone());
        if let Some(template) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(template.clone());
        }
        let (tracking, limit_bytes) = (&plan.settings.tracking, plan.settings.message_limit_bytes());
        let template = Arc::new(Template::compile(&definition.sender, &definition.content, tracking, limit_bytes)?);
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

    fn derive(&self, from: &[&str]) -> [u8; 32] {
        let mac = from.iter().fold(Hmac::clone(&self.0), |mac, piece| mac.chain_update(piece));
        mac.finalize().into_bytes().into()
    }
}

impl Context {
    /// The stamp of a recipient's message. It depends on nothing but delivery, position, key and instant, so a retry, a second
    /// sending and the preview have the same bytes. It has no signer yet.
    pub fn stamp(&self, at: &ChunkRef, position: u16, definition: &Definition, date: Timestamp) -> Stamp {
        let bytes = self.stamps.derive(&["message\0", at.delivery.as_str(), &format!("\0{}\0{position}", at.chunk)]);
        let (id, boundary) = bytes.split_at(15);
        Stamp { date, message_id: message_id(id, definition), boundary: HEXLOWER.encode(&boundary[..12]), signer: None }
    }

    /// Makes the tokens of a recipient's message, `number` of the sending log; none where nothing is tracked.
    pub fn signer(&self, id: &DeliveryId, plan: &Plan, number: u64, is_proof: bool) -> Option<Signer> {
        let recipient = u32::try_from(number).ok().filter(|_| !plan.settings.tracking.url.is_empty())?;
        Some(self.tokens.signer(id, plan.generation, Holder { preparation: plan.number, recipient, is_proof }))
    }

    /// The Message-ID of a proof: the same for the same proof, and never that of the message itself, which a mail server would
    /// then take for a duplicate.
    pub fn proof_id(&self, definition: &Definition, digest: &str, marks: &Marks) -> String {
        let proof = format!("proof\0{}\0{digest}\0{}\0{}", marks.of, marks.to, marks.subject_prefix);
        message_id(&self.stamps.derive(&[&proof])[..15], definition)
    }
}

fn message_id(id: &[u8], definition: &Definition) -> String {
    let domain = definition.sender.email.rsplit_once('@').map_or("invalid", |(_, domain)| domain);
    let mut message_id = String::with_capacity(BASE32_DNSSEC.encode_len(id.len()) + 1 + domain.len());
    BASE32_DNSSEC.encode_append(id, &mut message_id);
    message_id.extend(["@", domain]);
    message_id
}
