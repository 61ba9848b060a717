//! The sealed form of a slice: who wrote it, and for which Redis key.
//!
//! | bytes | content |
//! |---|---|
//! | 1 | [`SEALED`] |
//! | 4 | the due time of a chunk, Unix seconds, big-endian; 0 for at once and if this is no chunk |
//! | 16 | seal over the Redis key, the due time and the rest |
//! | rest | the compressed lines |
//!
//! Earlier versions stored the compressed lines alone. Such bytes begin with the magic number of
//! zstd.

use crate::{
    domain::{
        delivery::DeliveryId,
        seal::{SEAL_BYTES, SealKey},
    },
    store::{StoreError, keys},
};

/// The first byte of the sealed form.
const SEALED: u8 = 1;
const HEAD: usize = 1 + 4 + SEAL_BYTES;
/// The first bytes of a zstd frame (RFC 8878, 3.1.1).
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// What names a slice: its Redis key has these three parts.
pub(super) struct SliceName<'a> {
    pub delivery: &'a DeliveryId,
    /// Such as `chunks.2`.
    pub kind: &'a str,
    pub number: u32,
}

impl SliceName<'_> {
    pub(super) fn key(&self) -> String {
        keys::slice(self.delivery, self.kind, self.number)
    }

    /// The sealed form of these compressed lines.
    pub(super) fn seal(&self, key: &SealKey, due: u32, packed: &[u8]) -> Vec<u8> {
        let mut stored = Vec::with_capacity(HEAD + packed.len());
        stored.push(SEALED);
        stored.extend(due.to_be_bytes());
        stored.extend(key.seal(&parts(&self.key(), &due.to_be_bytes(), packed)));
        stored.extend(packed);
        stored
    }

    /// The due time and the compressed lines.
    ///
    /// # Errors
    /// [`StoreError::Altered`] if the seal is missing, or does not fit the Redis key or the
    /// content.
    pub(super) fn open<'s>(
        &self,
        key: &SealKey,
        stored: &'s [u8],
    ) -> Result<(u32, &'s [u8]), StoreError> {
        let opened = stored.split_at_checked(HEAD).and_then(|(head, packed)| {
            let (due, seal) = head.strip_prefix(&[SEALED])?.split_first_chunk::<4>()?;
            key.fits(&parts(&self.key(), due, packed), seal)
                .then_some((u32::from_be_bytes(*due), packed))
        });
        opened.ok_or_else(|| StoreError::Altered(format!("slice {} of {}", self.number, self.kind)))
    }

    /// Whether these bytes are of a version without seals.
    pub(super) fn is_unsealed(stored: &[u8]) -> bool {
        stored.starts_with(&ZSTD)
    }
}

/// The parts that the seal of a slice covers. `key` is the key of the slice in Redis.
fn parts<'a>(key: &'a str, due: &'a [u8; 4], packed: &'a [u8]) -> [&'a [u8]; 4] {
    [b"slice", key.as_bytes(), due, packed]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::seal::InstallationKey;

    #[test]
    fn a_slice_opens_only_under_its_redis_key_and_unaltered() {
        let key = SealKey::new(&InstallationKey::new([1; 32]));
        let (id, other): (DeliveryId, DeliveryId) =
            ("0123456789abcdef".parse().expect("id"), "0123456789abcdeg".parse().expect("id"));
        let name = SliceName { delivery: &id, kind: "chunks.2", number: 3 };
        let sealed = name.seal(&key, 77, b"packed");
        assert_eq!(name.open(&key, &sealed).expect("genuine"), (77, &b"packed"[..]));
        for elsewhere in [
            SliceName { delivery: &other, kind: "chunks.2", number: 3 },
            SliceName { delivery: &id, kind: "chunks.1", number: 3 },
            SliceName { delivery: &id, kind: "links.2", number: 3 },
            SliceName { delivery: &id, kind: "chunks.2", number: 4 },
        ] {
            assert!(elsewhere.open(&key, &sealed).is_err());
        }
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert!(name.open(&key, &altered).is_err(), "{at}");
        }
        for cut in [0, 1, HEAD - 1, HEAD, sealed.len() - 1] {
            assert!(name.open(&key, &sealed[..cut]).is_err(), "{cut}");
        }
        assert!(name.open(&key, &ZSTD).is_err() && SliceName::is_unsealed(&ZSTD));
    }
}
