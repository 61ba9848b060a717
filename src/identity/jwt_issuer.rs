//! An issuer of JWTs with its key.

use std::fs;

use jsonwebtoken::{Algorithm, DecodingKey};
use pkcs1::{RsaPublicKey, der::Decode};

use crate::{
    config::{ConfigError, JwtKeySettings},
    domain::Role,
};

/// Bytes of an HS256 secret: not fewer than its hash has (RFC 7518, 3.2).
const LEAST_SECRET_BYTES: usize = 32;
/// Bits of an RSA key (RFC 7518, 3.3).
const LEAST_RSA_BITS: usize = 2048;

/// An issuer of JWTs with its key.
pub(super) struct JwtIssuer {
    pub(super) name: String,
    /// The roles that the issuer may give.
    pub(super) roles: Vec<Role>,
    /// The unit of all its tokens. `None`: each token may claim any unit, or none.
    pub(super) unit: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

impl JwtIssuer {
    /// Reads the key of one issuer, number `i` in the settings.
    ///
    /// # Errors
    /// The key cannot be read, does not fit its algorithm, or is too weak. Or the algorithm is not
    /// known.
    pub(super) fn new(i: usize, settings: &JwtKeySettings) -> Result<Self, ConfigError> {
        let refuse = |what: &str, reason: String| ConfigError {
            setting: format!("auth.jwt_keys[{i}].{what}"),
            reason,
        };
        let bytes = fs::read(&settings.key_file).map_err(|e| refuse("key_file", e.to_string()))?;
        let (algorithm, key) = match settings.algorithm.as_str() {
            "HS256" if bytes.trim_ascii().len() < LEAST_SECRET_BYTES => {
                return Err(refuse(
                    "key_file",
                    "an HS256 secret needs at least 32 bytes (RFC 7518, 3.2)".into(),
                ));
            }
            "HS256" => (Algorithm::HS256, Ok(DecodingKey::from_secret(bytes.trim_ascii()))),
            "RS256" => (Algorithm::RS256, DecodingKey::from_rsa_pem(&bytes)),
            "ES256" => (Algorithm::ES256, DecodingKey::from_ec_pem(&bytes)),
            "EdDSA" => (Algorithm::EdDSA, DecodingKey::from_ed_pem(&bytes)),
            _ => return Err(refuse("algorithm", "must be HS256, RS256, ES256 or EdDSA".into())),
        };
        let key = key.map_err(|e| refuse("key_file", e.to_string()))?;
        if algorithm == Algorithm::RS256 {
            let bits = rsa_bits(&key).map_err(|reason| refuse("key_file", reason))?;
            if bits < LEAST_RSA_BITS {
                return Err(refuse(
                    "key_file",
                    format!("an RSA key needs at least 2048 bits (RFC 7518, 3.3), and has {bits}"),
                ));
            }
        }
        Ok(Self {
            name: settings.issuer.clone(),
            roles: settings.roles.clone(),
            unit: settings.unit.clone(),
            algorithm,
            key,
        })
    }
}

/// The bits of an RSA modulus.
fn rsa_bits(key: &DecodingKey) -> Result<usize, String> {
    let der = key.try_get_as_bytes().map_err(|e| e.to_string())?;
    let key = RsaPublicKey::from_der(der)
        .map_err(|_| "must be an RSA public key in PEM (PKCS #1 or SPKI)".to_owned())?;
    let modulus = key.modulus.as_bytes();
    let leading = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    Ok(modulus.len() * 8 - leading)
}
