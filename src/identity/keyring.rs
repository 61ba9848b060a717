//! The keyring: bearer tokens, known by their hash, and the keys of JWT issuers.

use std::fs;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, errors::ErrorKind};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    config::{AuthSettings, ConfigError, JwtKeySettings},
    domain::{Principal, Role, misleads, one_line},
};

/// The action that the JWT of a job must name to confirm a delivery.
pub const CONFIRM_SEND: &str = "confirm_send";
/// The allowed difference between the clocks of issuer and daemon, in seconds.
const LEEWAY_S: u64 = 60;

/// The reason why a token is refused. The text never repeats the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAuthentic {
    /// The request has no bearer token.
    #[error("a bearer token is needed")]
    Missing,
    /// No configured token or key fits.
    #[error("the token is unknown, or its signature is not that of a configured issuer")]
    Unknown,
    /// The JWT is too old.
    #[error("the token has expired")]
    Expired,
    /// The JWT is genuine, but a claim does not fit; the text says which.
    #[error("{0}")]
    Misused(&'static str),
}

/// The claims of a JWT (RFC 7519, section 4). Only the JWT of a job has `action`, `delivery` and
/// `digest`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The issuer, as in `auth.jwt_keys`.
    pub iss: String,
    /// The name of the principal at that issuer.
    pub sub: String,
    /// The audience: `auth.issuer_audience`.
    pub aud: String,
    /// When the token expires, in Unix seconds.
    pub exp: u64,
    /// When the token was issued, in Unix seconds.
    pub iat: u64,
    /// A unique id; required for the JWT of a job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// The roles that the token claims. The issuer must be allowed to give them.
    #[serde(default)]
    pub roles: Vec<Role>,
    /// [`CONFIRM_SEND`] for the JWT of a job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// The delivery that the job confirms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
    /// The digest that the job confirms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

impl Claims {
    /// The principal, named `issuer/subject`, so that issuers do not share names.
    pub fn principal(&self) -> Principal {
        Principal { name: format!("{}/{}", self.iss, self.sub), roles: self.roles.clone() }
    }
}

/// The principal that a JWT claims, for a log line. Nothing is checked, so nothing is proved.
pub fn claimed_name(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claimed {
        iss: String,
        sub: String,
    }
    let payload = BASE64URL_NOPAD.decode(token.split('.').nth(1)?.as_bytes()).ok()?;
    let Claimed { iss, sub } = serde_json::from_slice(&payload).ok()?;
    Some(one_line(&format!("{iss}/{sub}"), 100))
}

/// The configured tokens and keys.
pub struct Keyring {
    /// The SHA-256 of each bearer token, with its principal.
    tokens: Vec<([u8; 32], Principal)>,
    issuers: Vec<Issuer>,
    audience: String,
    longest_life_s: u64,
}

/// An issuer of JWTs with its key.
struct Issuer {
    name: String,
    /// The roles that the issuer may give.
    roles: Vec<Role>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Keyring {
    /// Reads the keys that the settings name.
    ///
    /// # Errors
    /// The hash of a bearer token is malformed, or a key cannot be read or does not fit its
    /// algorithm.
    pub fn new(settings: &AuthSettings) -> Result<Self, ConfigError> {
        let mut tokens = Vec::new();
        for (i, token) in settings.tokens.iter().enumerate() {
            let refuse = || ConfigError {
                setting: format!("auth.tokens[{i}].sha256"),
                reason: "must be 64 hexadecimal digits".into(),
            };
            let hash = HEXLOWER.decode(token.sha256.as_bytes()).map_err(|_| refuse())?;
            let hash = hash.try_into().map_err(|_| refuse())?;
            tokens.push((hash, Principal { name: token.name.clone(), roles: token.roles.clone() }));
        }
        let issuers = settings
            .jwt_keys
            .iter()
            .enumerate()
            .map(|(i, key)| issuer(i, key))
            .collect::<Result<_, _>>()?;
        let longest_life_s = settings.token_lifetime_hours * 3600;
        Ok(Self { tokens, issuers, audience: settings.issuer_audience.clone(), longest_life_s })
    }

    /// Adds a bearer token. A daemon without configured tokens makes its own.
    pub fn add(&mut self, token: &str, principal: Principal) {
        self.tokens.push((Sha256::digest(token).into(), principal));
    }

    /// True if nobody can log in.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.issuers.is_empty()
    }

    /// The principal of a bearer token or a JWT that came over HTTP.
    ///
    /// # Errors
    /// The token is unknown, expired or misused. The JWT of a job is refused, too.
    pub fn bearer(&self, token: &str) -> Result<Principal, NotAuthentic> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        // Every token is compared, so that the time taken reveals nothing.
        let found = self.tokens.iter().fold(None, |found, (known, principal)| {
            if bool::from(known.ct_eq(&hash)) { Some(principal) } else { found }
        });
        if let Some(principal) = found {
            return Ok(principal.clone());
        }
        let claims = self.claims(token)?;
        if claims.action.is_some() {
            return Err(NotAuthentic::Misused("the token is that of a job"));
        }
        Ok(claims.principal())
    }

    /// The claims of a job's JWT, if they name this delivery and this digest.
    ///
    /// # Errors
    /// The token is unknown, expired, or meant for something else.
    pub fn job(&self, token: &str, delivery: &str, digest: &str) -> Result<Claims, NotAuthentic> {
        let claims = self.claims(token)?;
        if claims.action.as_deref() != Some(CONFIRM_SEND) {
            return Err(NotAuthentic::Misused("the claim \"action\" must be \"confirm_send\""));
        }
        if claims.delivery.as_deref() != Some(delivery) {
            return Err(NotAuthentic::Misused(
                "the claim \"delivery\" is not the delivery of the job",
            ));
        }
        if claims.digest.as_deref() != Some(digest) {
            return Err(NotAuthentic::Misused("the claim \"digest\" is not the digest of the job"));
        }
        if claims.jti.as_deref().is_none_or(|jti| jti.is_empty() || jti.len() > 200) {
            return Err(NotAuthentic::Misused("the claim \"jti\" must have 1 to 200 bytes"));
        }
        Ok(claims)
    }

    /// The claims of a JWT of a configured issuer.
    fn claims(&self, token: &str) -> Result<Claims, NotAuthentic> {
        let mut worst = NotAuthentic::Unknown;
        for issuer in &self.issuers {
            let mut validation = Validation::new(issuer.algorithm);
            validation.set_audience(&[&self.audience]);
            validation.set_issuer(&[&issuer.name]);
            validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
            validation.validate_nbf = true;
            validation.leeway = LEEWAY_S;
            match decode::<Claims>(token, &issuer.key, &validation) {
                Ok(decoded) => return self.within_limits(decoded.claims, issuer),
                Err(error) => match error.kind() {
                    ErrorKind::ExpiredSignature => worst = NotAuthentic::Expired,
                    ErrorKind::ImmatureSignature => {
                        worst = NotAuthentic::Misused("the token is not valid yet")
                    }
                    ErrorKind::InvalidAudience => {
                        worst = NotAuthentic::Misused("the claim \"aud\" is not this daemon's")
                    }
                    ErrorKind::MissingRequiredClaim(_) | ErrorKind::Json(_) => {
                        worst = NotAuthentic::Misused("a claim is missing or malformed")
                    }
                    _ => {}
                },
            }
        }
        Err(worst)
    }

    /// Checks the limits of the daemon and of the issuer: lifetime, time of issue, roles.
    fn within_limits(&self, claims: Claims, issuer: &Issuer) -> Result<Claims, NotAuthentic> {
        if claims.exp.saturating_sub(claims.iat) > self.longest_life_s {
            return Err(NotAuthentic::Misused(
                "the token lives longer than auth.token_lifetime_hours",
            ));
        }
        if claims.sub.trim().is_empty() || claims.sub.len() > 200 || claims.sub.contains(misleads) {
            return Err(NotAuthentic::Misused(
                "the claim \"sub\" must have 1 to 200 printable characters",
            ));
        }
        if claims.iat > jsonwebtoken::get_current_timestamp() + LEEWAY_S {
            return Err(NotAuthentic::Misused("the token was issued in the future"));
        }
        if claims.roles.iter().any(|role| !issuer.roles.contains(role)) {
            return Err(NotAuthentic::Misused(
                "the token claims a role that its issuer may not give",
            ));
        }
        Ok(claims)
    }
}

/// Reads the key of one issuer, number `i` in the settings.
fn issuer(i: usize, settings: &JwtKeySettings) -> Result<Issuer, ConfigError> {
    let refuse = |what: &str, reason: String| ConfigError {
        setting: format!("auth.jwt_keys[{i}].{what}"),
        reason,
    };
    let bytes = fs::read(&settings.key_file).map_err(|e| refuse("key_file", e.to_string()))?;
    let (algorithm, key) = match settings.algorithm.as_str() {
        "HS256" if bytes.trim_ascii().len() < 32 => {
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
    Ok(Issuer { name: settings.issuer.clone(), roles: settings.roles.clone(), algorithm, key })
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};

    use super::*;
    use crate::config::Config;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn keyring(folder: &tempfile::TempDir) -> Keyring {
        let file = folder.path().join("key");
        fs::write(&file, [SECRET, b"\n"].concat()).unwrap();
        let hash = HEXLOWER.encode(&Sha256::digest("letmein"));
        let text = format!(
            "[auth]\n\
             tokens = [{{ name = \"ann\", sha256 = \"{hash}\", roles = [\"monitoring\"] }}]\n\
             jwt_keys = [{{ issuer = \"crm\", algorithm = \"HS256\", key_file = {file:?}, \
             roles = [\"start_deliveries\"] }}]"
        );
        Keyring::new(&Config::from_toml(&text).unwrap().auth).unwrap()
    }

    fn claims() -> Claims {
        let now = get_current_timestamp();
        Claims {
            iss: "crm".into(),
            sub: "campaigns".into(),
            aud: "versand".into(),
            exp: now + 600,
            iat: now,
            jti: Some("1".into()),
            roles: vec![Role::StartDeliveries],
            action: Some(CONFIRM_SEND.into()),
            delivery: Some("d".into()),
            digest: Some("x".into()),
        }
    }

    fn signed(claims: &Claims, secret: &[u8]) -> String {
        encode(&Header::default(), claims, &EncodingKey::from_secret(secret)).unwrap()
    }

    #[test]
    fn bearer_tokens_and_jwts_name_their_principal() {
        let folder = tempfile::tempdir().unwrap();
        let keyring = keyring(&folder);
        assert_eq!(keyring.bearer("letmein").map(|p| p.name), Ok("ann".into()));
        assert_eq!(keyring.bearer("letmeout"), Err(NotAuthentic::Unknown));
        let session = Claims { action: None, ..claims() };
        assert_eq!(
            keyring.bearer(&signed(&session, SECRET)).map(|p| p.name),
            Ok("crm/campaigns".into())
        );
        assert!(keyring.job(&signed(&claims(), SECRET), "d", "x").is_ok());
    }

    #[test]
    fn a_jwt_is_not_valid_before_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let keyring = keyring(&folder);
        let with_nbf = |nbf: serde_json::Value| {
            let mut claims = serde_json::to_value(claims()).unwrap();
            claims["nbf"] = nbf;
            let token =
                encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET)).unwrap();
            keyring.job(&token, "d", "x")
        };
        let now = get_current_timestamp();
        assert!(with_nbf((now - 5).into()).is_ok());
        assert!(matches!(with_nbf((now + 2 * LEEWAY_S).into()), Err(NotAuthentic::Misused(_))));
        assert!(with_nbf("soon".into()).is_err());
    }

    #[test]
    fn forged_expired_and_misused_jwts_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let keyring = keyring(&folder);
        let now = get_current_timestamp();
        let refusal = |claims: Claims| keyring.job(&signed(&claims, SECRET), "d", "x").unwrap_err();
        assert_eq!(
            keyring.job(&signed(&claims(), b"another secret of some 32 bytes!!"), "d", "x"),
            Err(NotAuthentic::Unknown)
        );
        assert_eq!(
            refusal(Claims { exp: now - 100, iat: now - 200, ..claims() }),
            NotAuthentic::Expired
        );
        for misused in [
            Claims { aud: "other".into(), ..claims() },
            Claims { sub: "ann\nWARN forged".into(), ..claims() },
            Claims { sub: " ".into(), ..claims() },
            Claims { exp: now + 25 * 3600, ..claims() },
            Claims { iat: now + 3600, exp: now + 7200, ..claims() },
            Claims { roles: vec![Role::Administration], ..claims() },
            Claims { action: None, ..claims() },
            Claims { action: Some("stop".into()), ..claims() },
            Claims { delivery: Some("e".into()), ..claims() },
            Claims { digest: None, ..claims() },
            Claims { jti: None, ..claims() },
        ] {
            assert!(matches!(refusal(misused.clone()), NotAuthentic::Misused(_)), "{misused:?}");
        }
        assert_eq!(refusal(Claims { iss: "shop".into(), ..claims() }), NotAuthentic::Unknown);
        assert!(
            matches!(keyring.bearer(&signed(&claims(), SECRET)), Err(NotAuthentic::Misused(_))),
            "a job's token is no session"
        );
        let unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJpc3MiOiJjcm0ifQ.";
        assert!(keyring.bearer(unsigned).is_err());
    }
}
