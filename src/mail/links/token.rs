//! Tokens in links: each one names a message and a link in it, and is signed.
//!
//! No address can be read from a token, and nobody without the key can make one.
//!
//! A token has 16 bytes (18 in a click), in base64url without padding (RFC 4648, 5):
//!
//! | bytes | content |
//! |---|---|
//! | 4 | number of the preparation |
//! | 4 | recipient or proof number; the first bit: hits do not count, the second: a proof number |
//! | 2 | number of the link, only in a click |
//! | 8 | tag |
//!
//! The tag is SipHash-2-4 over purpose and link. Its key is derived for each message from the key
//! of the installation, by HMAC-SHA256. So one derivation serves all links of a message.

use std::{hash::Hasher, sync::Arc};

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, Mac, digest::InvalidLength};
use sha2::Sha256;
use siphasher::sip::SipHasher24;

use crate::domain::{delivery::DeliveryId, tracking::HitKind};

/// The bit that says that hits do not count: a proof, or the preview of a recipient in doubt.
const PROOF: u32 = 1 << 31;
/// The bit that marks a proof number. No audience has 2^30 recipients, so no recipient number has
/// this bit set.
const NUMBERED: u32 = 1 << 30;

/// The purpose of a link with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkPurpose {
    /// The open pixel.
    Open,
    /// A tracked link, with its number.
    Click(u16),
    /// The mirror page.
    Mirror,
    /// The opt-out.
    OptOut,
}

impl LinkPurpose {
    /// The kind of hit that a request for the link is.
    pub fn kind(self) -> HitKind {
        match self {
            Self::Open => HitKind::Open,
            Self::Click(_) => HitKind::Click,
            Self::Mirror => HitKind::Mirror,
            Self::OptOut => HitKind::OptOut,
        }
    }

    /// The path of such links at the public listener, up to the token.
    pub fn path(self) -> &'static str {
        match self {
            Self::Open => "/o/",
            Self::Click(_) => "/c/",
            Self::Mirror => "/m/",
            Self::OptOut => "/u/",
        }
    }

    /// The length of a token in characters: 22, or 24 in a click.
    pub fn token_bytes(self) -> usize {
        if self.link().is_some() { 24 } else { 22 }
    }

    fn link(self) -> Option<u16> {
        if let Self::Click(link) = self { Some(link) } else { None }
    }
}

/// The message that a token stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenHolder {
    /// The number of the preparation in the index of messages.
    pub preparation: u32,
    /// The recipient number, below 2^30; or the number of a proof, see
    /// [`TokenHolder::proof_number`].
    pub recipient: u32,
    /// The message is a proof, or the preview of a recipient in doubt. Its hits are not counted.
    pub is_proof: bool,
}

impl TokenHolder {
    /// The holder for a proof. Its number, below 2^30, stands for a recipient and a test address.
    pub fn numbered_proof(preparation: u32, number: u32) -> Self {
        Self { preparation, recipient: number | NUMBERED, is_proof: true }
    }

    /// The number of the proof. `None` for other messages, and for proofs of earlier versions.
    pub fn proof_number(self) -> Option<u32> {
        (self.is_proof && self.recipient & NUMBERED != 0).then_some(self.recipient & !NUMBERED)
    }
}

/// The key of the installation, set up once.
#[derive(Clone)]
pub struct TokenKey(Arc<Hmac<Sha256>>);

impl TokenKey {
    /// A key from the secret that all daemons share.
    ///
    /// # Errors
    ///
    /// Never: HMAC takes keys of any length.
    pub fn new(secret: &[u8; 32]) -> Result<Self, InvalidLength> {
        <Hmac<Sha256> as Mac>::new_from_slice(secret).map(|mac| Self(Arc::new(mac)))
    }

    /// The signer for the tokens of one message.
    pub fn signer(
        &self,
        delivery: &DeliveryId,
        generation: u32,
        holder: TokenHolder,
    ) -> TokenSigner {
        let mut head = [0; 8];
        head[..4].copy_from_slice(&holder.preparation.to_be_bytes());
        head[4..].copy_from_slice(
            &(holder.recipient | if holder.is_proof { PROOF } else { 0 }).to_be_bytes(),
        );
        let mac = Hmac::clone(&self.0)
            .chain_update(delivery.as_str())
            .chain_update(generation.to_be_bytes())
            .chain_update(head);
        let digest: [u8; 32] = mac.finalize().into_bytes().into();
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        TokenSigner { head, hasher: SipHasher24::new_with_key(&key) }
    }
}

/// Makes and checks the tokens of one message.
#[derive(Debug, Clone, Copy)]
pub struct TokenSigner {
    head: [u8; 8],
    hasher: SipHasher24,
}

impl TokenSigner {
    /// Appends a token: 22 characters, or 24 in a click.
    pub fn write(&self, out: &mut String, purpose: LinkPurpose) {
        let mut token = [0; 18];
        token[..8].copy_from_slice(&self.head);
        let mut end = 8;
        if let Some(link) = purpose.link() {
            token[8..10].copy_from_slice(&link.to_be_bytes());
            end = 10;
        }
        token[end..end + 8].copy_from_slice(&self.tag(purpose).to_be_bytes());
        BASE64URL_NOPAD.encode_append(&token[..end + 8], out);
    }

    /// Whether this signer made the token.
    pub fn has_signed(&self, token: &LinkToken) -> bool {
        self.tag(token.purpose) == token.tag
    }

    fn tag(&self, purpose: LinkPurpose) -> u64 {
        let mut hasher = self.hasher;
        let [high, low] = purpose.link().unwrap_or_default().to_be_bytes();
        hasher.write(&[purpose.kind() as u8, high, low]);
        hasher.finish()
    }
}

/// A token that came back. Its content must not be trusted before [`TokenSigner::has_signed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkToken {
    /// The message.
    pub holder: TokenHolder,
    /// The link in the message.
    pub purpose: LinkPurpose,
    tag: u64,
}

impl LinkToken {
    /// Reads a token. `None` if the text does not have the form of this kind.
    pub fn read(text: &str, kind: HitKind) -> Option<Self> {
        let length = if kind == HitKind::Click { 18 } else { 16 };
        if text.len() != BASE64URL_NOPAD.encode_len(length) {
            return None;
        }
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        let (preparation, rest) = bytes.split_first_chunk::<4>()?;
        let (recipient, rest) = rest.split_first_chunk::<4>()?;
        let (link, tag) = rest.split_last_chunk::<8>()?;
        let recipient = u32::from_be_bytes(*recipient);
        let purpose = match kind {
            HitKind::Open => LinkPurpose::Open,
            HitKind::Click => LinkPurpose::Click(u16::from_be_bytes(link.try_into().ok()?)),
            HitKind::Mirror => LinkPurpose::Mirror,
            HitKind::OptOut => LinkPurpose::OptOut,
        };
        let holder = TokenHolder {
            preparation: u32::from_be_bytes(*preparation),
            recipient: recipient & !PROOF,
            is_proof: recipient & PROOF != 0,
        };
        Some(Self { holder, purpose, tag: u64::from_be_bytes(*tag) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(key: u8, delivery: &str, generation: u32, holder: TokenHolder) -> TokenSigner {
        TokenKey::new(&[key; 32]).expect("a key").signer(
            &delivery.parse().expect("an id"),
            generation,
            holder,
        )
    }

    #[test]
    fn a_proof_number_is_no_recipient_number() {
        let proof = TokenHolder::numbered_proof(7, 12);
        assert_eq!(proof.proof_number(), Some(12));
        let mut text = String::new();
        signer(1, "0123456789abcdef", 2, proof).write(&mut text, LinkPurpose::OptOut);
        let token = LinkToken::read(&text, HitKind::OptOut).expect("a token");
        assert_eq!(token.holder, proof);
        for is_proof in [true, false] {
            let holder = TokenHolder { preparation: 7, recipient: 12, is_proof };
            assert_eq!(holder.proof_number(), None);
            assert!(!signer(1, "0123456789abcdef", 2, holder).has_signed(&token));
        }
    }

    #[test]
    fn only_the_signed_token_is_valid() {
        let (id, other) = ("0123456789abcdef", "0123456789abcdeg");
        let holder = TokenHolder { preparation: 7, recipient: 1_000_000, is_proof: false };
        let owner = signer(1, id, 2, holder);
        for purpose in
            [LinkPurpose::Open, LinkPurpose::Click(300), LinkPurpose::Mirror, LinkPurpose::OptOut]
        {
            let mut text = String::new();
            owner.write(&mut text, purpose);
            let token = LinkToken::read(&text, purpose.kind()).expect("a token");
            assert_eq!((token.holder, token.purpose), (holder, purpose));
            assert_eq!(text.len(), purpose.token_bytes());
            assert!(owner.has_signed(&token));
            for foreign in
                [signer(2, id, 2, holder), signer(1, other, 2, holder), signer(1, id, 3, holder)]
            {
                assert!(!foreign.has_signed(&token));
            }
            assert!(!signer(1, id, 2, TokenHolder { is_proof: true, ..holder }).has_signed(&token));
            assert!(
                !signer(1, id, 2, TokenHolder { recipient: 1_000_001, ..holder })
                    .has_signed(&token)
            );
            // A token for one purpose is not valid for another.
            for kind in HitKind::ALL.into_iter().filter(|kind| *kind != purpose.kind()) {
                assert!(LinkToken::read(&text, kind).is_none_or(|token| !owner.has_signed(&token)));
            }
            let mut bytes = BASE64URL_NOPAD.decode(text.as_bytes()).expect("base64url");
            for i in 8..bytes.len() {
                bytes[i] ^= 1;
                let changed = LinkToken::read(&BASE64URL_NOPAD.encode(&bytes), purpose.kind())
                    .expect("a token");
                assert!(!owner.has_signed(&changed));
                bytes[i] ^= 1;
            }
        }
        for text in
            ["", "x", "AAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAA=", "AAAAAAAAAAAAAAAAAAAAA%"]
        {
            assert_eq!(LinkToken::read(text, HitKind::Open), None);
        }
    }
}
