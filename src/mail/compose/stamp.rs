//! The stamp of a message: values that make it unique, and the same each time it is made.

use std::{borrow::Cow, sync::Arc};

use data_encoding::{BASE32_DNSSEC, HEXLOWER};
use hmac::{Hmac, Mac, digest::InvalidLength};
use jiff::Timestamp;
use sha2::Sha256;

use crate::{
    domain::{delivery::Definition, ledger::ChunkRef},
    mail::{links::TokenSigner, to_ascii},
};

/// Bytes of a derived key that become the left side of a Message-ID.
const MESSAGE_ID_BYTES: usize = 15;
/// Bytes of a derived key that become a MIME boundary.
const BOUNDARY_BYTES: usize = 12;

/// Values that are the same each time one message is made, so that its bytes are the same, too.
#[derive(Debug, Clone)]
pub struct MessageStamp {
    /// The instant in the `Date` header.
    pub date: Timestamp,
    /// `left@right`, without angle brackets (RFC 5322, 3.6.4).
    pub message_id: String,
    /// The variable part of the MIME boundary: letters, digits and `-`, at most 60.
    pub boundary: String,
    /// Makes the tokens of the message; `None` if nothing is tracked.
    pub signer: Option<TokenSigner>,
}

/// The differences between a proof and the message itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofMarks {
    /// The test address.
    pub to: String,
    /// Text before the subject, without control characters.
    pub subject_prefix: String,
    /// The recipient whose message it is: short, ASCII, without spaces.
    pub of: String,
}

/// The key that derives stamps, set up once per installation.
#[derive(Clone)]
pub struct StampKey(Arc<Hmac<Sha256>>);

impl StampKey {
    /// A key from the secret that all daemons share.
    ///
    /// # Errors
    ///
    /// Never: HMAC takes keys of any length.
    pub fn new(secret: &[u8; 32]) -> Result<Self, InvalidLength> {
        <Hmac<Sha256> as Mac>::new_from_slice(secret).map(|mac| Self(Arc::new(mac)))
    }

    /// The stamp of a recipient's message, without a signer.
    ///
    /// The stamp depends only on the key, the delivery, its sender's domain, the chunk, the
    /// position and `date`. So a retry and a second sending have the same bytes. The preview has
    /// them, too, but for a recipient in doubt its tokens differ.
    pub fn stamp(
        &self,
        at: &ChunkRef,
        position: u16,
        definition: &Definition,
        date: Timestamp,
    ) -> MessageStamp {
        let bytes = self.derive_for(at, position);
        let (id, boundary) = bytes.split_at(MESSAGE_ID_BYTES);
        MessageStamp {
            date,
            message_id: message_id(id, definition),
            boundary: HEXLOWER.encode(&boundary[..BOUNDARY_BYTES]),
            signer: None,
        }
    }

    /// The Message-ID of a proof, the same each time the same proof is sent.
    ///
    /// It differs from that of the message itself. Otherwise a mail server would take the message
    /// for a duplicate.
    pub fn proof_id(&self, definition: &Definition, digest: &str, marks: &ProofMarks) -> String {
        let proof =
            format!("proof\0{}\0{digest}\0{}\0{}", marks.of, marks.to, marks.subject_prefix);
        message_id(&self.derive(&proof)[..MESSAGE_ID_BYTES], definition)
    }

    fn derive(&self, from: &str) -> [u8; 32] {
        Hmac::clone(&self.0).chain_update(from).finalize().into_bytes().into()
    }

    /// The derivation must never change: a message that is retried after an upgrade keeps its
    /// Message-ID.
    fn derive_for(&self, at: &ChunkRef, position: u16) -> [u8; 32] {
        self.derive(&format!("message\0{}\0{}\0{position}", at.delivery, at.chunk))
    }
}

fn message_id(id: &[u8], definition: &Definition) -> String {
    let sender = definition.sender.email.trim();
    // An ASCII domain keeps its spelling: upper case is valid in a header.
    let sender = if sender.is_ascii() {
        Cow::Borrowed(sender)
    } else {
        Cow::Owned(to_ascii(sender).unwrap_or_default())
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
        let (id, boundary) = bytes.split_at(MESSAGE_ID_BYTES);
        assert_eq!(BASE32_DNSSEC.encode(id), "4n83pj5jtn8tloe242k8bhuo");
        assert_eq!(HEXLOWER.encode(&boundary[..BOUNDARY_BYTES]), "0da221a4b65e367d10796ea6");
    }

    #[test]
    fn a_message_id_is_ascii_for_every_sender_domain() {
        let definition = |email: &str| -> Definition {
            let definition = serde_json::json!({
                "name": "A",
                "sender": {"email": email},
                "content": {"subject": "s", "text": "t"},
            });
            serde_json::from_value(definition).expect("a definition")
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
