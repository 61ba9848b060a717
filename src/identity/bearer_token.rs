//! A configured bearer token: its hash, its principal and its end.

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::{
    config::{ConfigError, TokenSettings},
    domain::Principal,
};

/// A bearer token. Only the SHA-256 of its text is known.
#[derive(Debug, Clone)]
pub struct BearerToken {
    pub(super) hash: [u8; 32],
    pub principal: Principal,
    /// The token is not valid from then on.
    pub expires: Option<Timestamp>,
}

impl BearerToken {
    /// Reads token number `i` of the settings.
    ///
    /// # Errors
    /// Its hash is malformed.
    pub(super) fn new(i: usize, token: &TokenSettings) -> Result<Self, ConfigError> {
        let refuse = || ConfigError {
            setting: format!("auth.tokens[{i}].sha256"),
            reason: "must be 64 hexadecimal digits".into(),
        };
        let hash = HEXLOWER_PERMISSIVE.decode(token.sha256.as_bytes()).map_err(|_| refuse())?;
        let principal = Principal::new(&token.name, token.roles.clone());
        Ok(Self {
            hash: hash.try_into().map_err(|_| refuse())?,
            principal: Principal { unit: token.unit.clone(), ..principal },
            expires: token.expires,
        })
    }

    /// A token that is not in the settings.
    pub(super) fn made(token: &str, principal: Principal) -> Self {
        Self { hash: Sha256::digest(token).into(), principal, expires: None }
    }

    /// The SHA-256 of its text, in lower-case hexadecimal.
    pub fn sha256(&self) -> String {
        HEXLOWER.encode(&self.hash)
    }
}
