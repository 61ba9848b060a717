//! The secret of an installation, from which a key for each purpose derives.

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The block of SHA-256 in bytes: an HMAC fills its key up to this size.
const BLOCK: usize = 64;

/// An HMAC with this key. Zeros fill the key up to the size of a block, as RFC 2104 says.
pub(in crate::domain) fn hmac_with(key: &[u8; 32]) -> Hmac<Sha256> {
    let mut block = [0; BLOCK];
    block[..key.len()].copy_from_slice(key);
    <Hmac<Sha256> as hmac::digest::KeyInit>::new(&block.into())
}

/// The secret of an installation: 32 random bytes that all its daemons share and Redis never holds.
#[derive(Clone)]
pub struct InstallationKey([u8; 32]);

impl InstallationKey {
    /// The key with these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key for one purpose. Keys of different purposes say nothing about each other.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        hmac_with(&self.0)
            .chain_update("versand key 1\0")
            .chain_update(purpose)
            .finalize()
            .into_bytes()
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_keys_never_change_and_differ_by_purpose() {
        let key = InstallationKey::new([7; 32]);
        let hex = |bytes: [u8; 32]| data_encoding::HEXLOWER.encode(&bytes[..8]);
        assert_ne!(hex(key.derive("seal")), hex(key.derive("audit")));
        assert_ne!(hex(key.derive("seal")), hex(InstallationKey::new([8; 32]).derive("seal")));
        let same = <Hmac<Sha256> as Mac>::new_from_slice(&[7; 32]).expect("a key");
        let expected: [u8; 32] =
            same.chain_update("versand key 1\0seal").finalize().into_bytes().into();
        assert_eq!(key.derive("seal"), expected);
    }
}
