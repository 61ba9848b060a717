//! Secrets that all daemons share, which Redis holds only in a sealed form.
//!
//! A sealed secret has 24 bytes of nonce, 32 bytes of ciphertext and 16 bytes of tag
//! (XChaCha20-Poly1305). Earlier versions stored the 32 bytes of the secret itself.

use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead, KeyInit, Payload},
};
use redis::AsyncCommands;

use super::{
    connection::{Redis, StoreError},
    keys,
};
use crate::domain::seal::InstallationKey;

const SECRET_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
/// A daemon that was not seen for so many milliseconds has ended.
const PRESENT_MS: u64 = 10_000;

/// A secret as Redis holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredSecret {
    Missing,
    /// As an earlier version stored it.
    Plain([u8; SECRET_BYTES]),
    Sealed(Vec<u8>),
}

/// Seals and opens one secret.
pub struct SealedSecret<'a> {
    pub key: &'a InstallationKey,
    /// The name of the secret. A sealed secret opens only under its own name.
    pub name: &'a str,
}

impl SealedSecret<'_> {
    /// The sealed form of a secret.
    pub fn seal(&self, secret: &[u8; SECRET_BYTES], nonce: [u8; NONCE_BYTES]) -> Vec<u8> {
        let payload = Payload { msg: secret, aad: self.name.as_bytes() };
        // encryption fails only for messages of many gigabytes
        let sealed = self.cipher().encrypt(&XNonce::from(nonce), payload).unwrap_or_default();
        [&nonce[..], &sealed].concat()
    }

    /// The secret inside a sealed form. `None` if another key or another name sealed it, or if it
    /// was altered.
    pub fn open(&self, sealed: &[u8]) -> Option<[u8; SECRET_BYTES]> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let payload = Payload { msg: rest, aad: self.name.as_bytes() };
        self.cipher().decrypt(&XNonce::from(*nonce), payload).ok()?.try_into().ok()
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&self.key.derive("secrets").into())
    }
}

impl Redis {
    /// A shared secret as it is stored.
    pub async fn stored_secret(&self, name: &str) -> Result<StoredSecret, StoreError> {
        let stored: Option<Vec<u8>> = self.connection().get(keys::secret(name)).await?;
        Ok(match stored {
            None => StoredSecret::Missing,
            Some(bytes) => match bytes.try_into() {
                Ok(plain) => StoredSecret::Plain(plain),
                Err(bytes) => StoredSecret::Sealed(bytes),
            },
        })
    }

    /// Stores a sealed secret. With `replace` it takes the place of the stored one. Returns the
    /// secret that is stored now.
    pub async fn store_secret(
        &self,
        name: &str,
        sealed: Vec<u8>,
        replace: bool,
    ) -> Result<Vec<u8>, StoreError> {
        let mut set = redis::cmd("SET");
        set.arg(keys::secret(name)).arg(&sealed);
        if !replace {
            set.arg("NX");
        }
        let before: Option<Vec<u8>> = set.arg("GET").query_async(&mut self.connection()).await?;
        Ok(before.filter(|_| !replace).unwrap_or(sealed))
    }

    /// The check value of the installation's key, if a daemon has stored one.
    pub async fn installation_check(&self) -> Result<Option<String>, StoreError> {
        Ok(self.connection().get(keys::INSTALLATION).await?)
    }

    /// Stores the check value, unless there is one. Returns the one that is stored now.
    pub async fn note_installation(&self, check: &str) -> Result<String, StoreError> {
        let _: bool = self.connection().set_nx(keys::INSTALLATION, check).await?;
        Ok(self.installation_check().await?.unwrap_or_default())
    }

    /// How many daemons were seen within the last ten seconds, by the clock of Redis.
    pub async fn daemons_present(&self) -> Result<u64, StoreError> {
        let (seconds, micros): (u64, u64) =
            redis::cmd("TIME").query_async(&mut self.connection()).await?;
        let since = (seconds * 1000 + micros / 1000).saturating_sub(PRESENT_MS);
        Ok(self.connection().zcount(keys::DAEMONS_SEEN, since, "+inf").await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_secret_opens_only_under_its_key_and_name() {
        let (key, other) = (InstallationKey::new([1; 32]), InstallationKey::new([2; 32]));
        let tokens = SealedSecret { key: &key, name: "token" };
        let sealed = tokens.seal(&[9; 32], [3; 24]);
        assert_eq!(sealed.len(), 72);
        assert_eq!(tokens.open(&sealed), Some([9; 32]));
        assert!(!sealed.windows(8).any(|bytes| bytes == [9; 8]));
        assert_eq!(SealedSecret { key: &other, name: "token" }.open(&sealed), None);
        assert_eq!(SealedSecret { key: &key, name: "message" }.open(&sealed), None);
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert_eq!(tokens.open(&altered), None, "{at}");
        }
        for bytes in [&sealed[..71], &[9; 32], &[]] {
            assert_eq!(tokens.open(bytes), None);
        }
    }
}
