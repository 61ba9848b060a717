//! The keyring: bearer tokens, known by their hash, and the keys of JWT issuers.

use jiff::Timestamp;
use jsonwebtoken::{Validation, decode, decode_header, errors::ErrorKind};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{bearer_token::BearerToken, claims::Claims, jwt_issuer::JwtIssuer};
use crate::{
    config::{AuthSettings, ConfigError},
    domain::{Principal, is_unit_name},
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
    /// The token is too old.
    #[error("the token has expired")]
    Expired,
    /// An administrator has revoked the token.
    #[error("the token was revoked")]
    Revoked,
    /// A claim of the JWT or its header does not fit; the text says why.
    #[error("{0}")]
    Misused(&'static str),
}

/// The configured tokens and keys.
pub struct Keyring {
    tokens: Vec<BearerToken>,
    issuers: Vec<JwtIssuer>,
    audience: String,
    longest_life_s: u64,
}

impl Keyring {
    /// Reads the keys that the settings name.
    ///
    /// # Errors
    /// The hash of a bearer token is malformed. Or a key cannot be read, does not fit its algorithm
    /// or is too weak, or the algorithm is not known.
    pub fn new(settings: &AuthSettings) -> Result<Self, ConfigError> {
        let tokens = settings.tokens.iter().enumerate();
        let tokens =
            tokens.map(|(i, token)| BearerToken::new(i, token)).collect::<Result<_, _>>()?;
        let issuers = settings.jwt_keys.iter().enumerate();
        let issuers = issuers.map(|(i, key)| JwtIssuer::new(i, key)).collect::<Result<_, _>>()?;
        let longest_life_s = settings.token_lifetime_hours * 3600;
        Ok(Self { tokens, issuers, audience: settings.issuer_audience.clone(), longest_life_s })
    }

    /// Adds a bearer token. A daemon without configured tokens and keys makes its own.
    pub fn add(&mut self, token: &str, principal: Principal) {
        self.tokens.push(BearerToken::made(token, principal));
    }

    /// The bearer tokens.
    pub fn tokens(&self) -> &[BearerToken] {
        &self.tokens
    }

    /// The bearer token with this text, also if it has expired.
    pub fn token(&self, text: &str) -> Option<&BearerToken> {
        let hash: [u8; 32] = Sha256::digest(text).into();
        // Every token is compared, so that the time taken reveals nothing.
        self.tokens.iter().fold(None, |found, known| {
            if bool::from(known.hash.ct_eq(&hash)) { Some(known) } else { found }
        })
    }

    /// True if there is neither a token nor a key: nobody can log in.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.issuers.is_empty()
    }

    /// The principal of a bearer token or a JWT that came over HTTP.
    ///
    /// # Errors
    /// The token is unknown, expired or misused. The JWT of a job is refused, too.
    pub fn bearer(&self, token: &str) -> Result<Principal, NotAuthentic> {
        if let Some(known) = self.token(token) {
            return match known.expires.is_some_and(|end| end <= Timestamp::now()) {
                true => Err(NotAuthentic::Expired),
                false => Ok(known.principal.clone()),
            };
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
        // no extension is understood here, so a token that needs one is invalid (RFC 7515, 4.1.11)
        if decode_header(token).is_ok_and(|header| header.crit.is_some()) {
            return Err(NotAuthentic::Misused("the header \"crit\" names an unknown extension"));
        }
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

    /// Checks the subject, the lifetime, the time of issue, the roles and the unit of a JWT.
    fn within_limits(
        &self,
        mut claims: Claims,
        issuer: &JwtIssuer,
    ) -> Result<Claims, NotAuthentic> {
        if !claims.has_subject() {
            return Err(NotAuthentic::Misused(
                "the claim \"sub\" must have 1 to 200 printable characters",
            ));
        }
        if claims.exp.saturating_sub(claims.iat) > self.longest_life_s {
            return Err(NotAuthentic::Misused(
                "the token lives longer than auth.token_lifetime_hours",
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
        if claims.unit.as_deref().is_some_and(|unit| !is_unit_name(unit)) {
            return Err(NotAuthentic::Misused("the claim \"unit\" is malformed"));
        }
        if let Some(unit) = &issuer.unit {
            if claims.unit.as_ref().is_some_and(|claimed| claimed != unit) {
                return Err(NotAuthentic::Misused(
                    "the token claims a unit that its issuer may not give",
                ));
            }
            claims.unit = Some(unit.clone());
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use data_encoding::HEXLOWER;
    use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};

    use super::*;
    use crate::{config::Config, domain::Role, identity::claims::JwtAudience};

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
            unit: None,
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
    fn a_jwt_may_name_several_audiences_but_no_critical_extension() {
        let folder = tempfile::tempdir().unwrap();
        let keyring = keyring(&folder);
        let aud = JwtAudience::Several(vec!["other".into(), "versand".into()]);
        let several = Claims { aud, ..claims() };
        assert!(keyring.job(&signed(&several, SECRET), "d", "x").is_ok());
        for extensions in [vec!["b64".to_owned()], vec![]] {
            let header = Header { crit: Some(extensions), ..Header::default() };
            let token = encode(&header, &claims(), &EncodingKey::from_secret(SECRET)).unwrap();
            assert!(matches!(keyring.job(&token, "d", "x"), Err(NotAuthentic::Misused(_))));
        }
    }

    #[test]
    fn a_bearer_token_expires() {
        let hash = HEXLOWER.encode(&Sha256::digest("letmein")).to_uppercase();
        let of = |expires: &str| {
            let text = format!(
                "[auth]\ntokens = [{{ name = \"ann\", sha256 = \"{hash}\", \
                 roles = [\"monitoring\"], expires = {expires} }}]"
            );
            Keyring::new(&Config::from_toml(&text).unwrap().auth).unwrap().bearer("letmein")
        };
        assert_eq!(of("\"2020-01-01T00:00:00Z\""), Err(NotAuthentic::Expired));
        assert_eq!(of("2020-01-01T00:00:00Z"), Err(NotAuthentic::Expired));
        assert!(of("\"2990-01-01T00:00:00+01:00\"").is_ok());
        assert!(of("2990-01-01T00:00:00Z").is_ok());
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
            Claims { aud: JwtAudience::Several(vec!["other".into()]), ..claims() },
            Claims { sub: String::new(), ..claims() },
            Claims { sub: "a\nb".into(), ..claims() },
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
