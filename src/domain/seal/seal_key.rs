//! Makes and checks seals: HMAC-SHA256, cut to 16 bytes.

use std::sync::Arc;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::installation_key::{InstallationKey, hmac_with};

/// The length of a seal.
pub const SEAL_BYTES: usize = 16;

/// The key of the seals. Cheap to clone.
#[derive(Clone)]
pub struct SealKey(Arc<Hmac<Sha256>>);

impl SealKey {
    /// The key of this installation.
    pub fn new(key: &InstallationKey) -> Self {
        Self(Arc::new(hmac_with(&key.derive("seal"))))
    }

    /// The seal over these parts. Other parts, or the same bytes cut elsewhere, have another one.
    pub fn seal(&self, parts: &[&[u8]]) -> [u8; SEAL_BYTES] {
        let whole: [u8; 32] = self.mac(parts).finalize().into_bytes().into();
        std::array::from_fn(|i| whole[i])
    }

    /// Whether `seal` is the seal over these parts. Takes the same time for each wrong one of 16
    /// bytes.
    pub fn fits(&self, parts: &[&[u8]], seal: &[u8]) -> bool {
        seal.len() == SEAL_BYTES && self.mac(parts).verify_truncated_left(seal).is_ok()
    }

    fn mac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        parts.iter().fold(Hmac::clone(&self.0), |mac, part| {
            mac.chain_update((part.len() as u64).to_be_bytes()).chain_update(part)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_seal_over_the_same_parts_fits() {
        let key = SealKey::new(&InstallationKey::new([1; 32]));
        let seal = key.seal(&[b"ab", b"c"]);
        assert!(key.fits(&[b"ab", b"c"], &seal));
        let other_key = SealKey::new(&InstallationKey::new([2; 32]));
        assert!(!other_key.fits(&[b"ab", b"c"], &seal));
        for parts in [&[&b"a"[..], b"bc"][..], &[b"abc"], &[b"ab", b"c", b""], &[b"ab", b"d"]] {
            assert!(!key.fits(parts, &seal));
        }
        for wrong in [&seal[..15], &[][..], &[0; 16]] {
            assert!(!key.fits(&[b"ab", b"c"], wrong));
        }
    }
}
