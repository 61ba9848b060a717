//! The id of a delivery: 16 characters.

use std::{fmt, str::FromStr};

use data_encoding::BASE32_DNSSEC;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const BYTES: usize = 10;

/// 80 bits as 16 characters of `0-9a-v`: random, or derived from principal and idempotency key. The
/// id of an occurrence is derived from its template and its due time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeliveryId(String);

/// Text that is not the id of a delivery.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a delivery id: 16 characters of 0-9 and a-v are expected")]
pub struct InvalidId;

impl DeliveryId {
    /// The id for a principal and an idempotency key. It is always the same, so a repeated request
    /// finds the delivery that the first one created.
    pub fn derived(principal: &str, idempotency_key: &str) -> Self {
        let digest = Sha256::new()
            .chain_update((principal.len() as u64).to_be_bytes())
            .chain_update(principal)
            .chain_update(idempotency_key)
            .finalize();
        Self(BASE32_DNSSEC.encode(&digest[..BYTES]))
    }

    /// An id from random bytes.
    pub fn from_random(bytes: [u8; BYTES]) -> Self {
        Self(BASE32_DNSSEC.encode(&bytes))
    }

    /// The 16 characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeliveryId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let canonical =
            text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'v'));
        canonical.then(|| Self(text.to_owned())).ok_or(InvalidId)
    }
}

impl TryFrom<String> for DeliveryId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<DeliveryId> for String {
    fn from(id: DeliveryId) -> Self {
        id.0
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_ids_repeat_and_do_not_run_together() {
        assert_eq!(DeliveryId::derived("a", "bc"), DeliveryId::derived("a", "bc"));
        assert_ne!(DeliveryId::derived("a", "bc"), DeliveryId::derived("ab", "c"));
        let id = DeliveryId::derived("shop", "k1");
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "0123", "0123456789ABCDEF", "0123456789abcde{", "0123456789abcdez"] {
            assert!(text.parse::<DeliveryId>().is_err(), "{text}");
        }
    }
}
