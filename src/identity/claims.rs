//! The claims of a JWT, as identity providers write them.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::domain::{Principal, Role, misleads, one_line};

/// The longest `sub`, in characters.
const LONGEST_SUBJECT: usize = 200;

/// The claims of a JWT (RFC 7519, section 4). Only the JWT of a job has `action`, `delivery` and
/// `digest`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The issuer, as in `auth.jwt_keys`.
    pub iss: String,
    /// The name of the principal at that issuer.
    pub sub: String,
    /// The audience: `auth.issuer_audience`, or several audiences with that one among them.
    pub aud: JwtAudience,
    /// When the token expires, in Unix seconds.
    #[serde(deserialize_with = "numeric_date")]
    pub exp: u64,
    /// When the token was issued, in Unix seconds.
    #[serde(deserialize_with = "numeric_date")]
    pub iat: u64,
    /// A unique id; required for the JWT of a job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// The roles that the token claims. The issuer must be allowed to give them. Roles of other
    /// systems are left out.
    #[serde(default, deserialize_with = "known_roles")]
    pub roles: Vec<Role>,
    /// The unit of the principal. An issuer with a unit gives no other one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// [`super::CONFIRM_SEND`] for the JWT of a job.
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
        let name = format!("{}/{}", self.iss, self.sub);
        Principal { unit: self.unit.clone(), ..Principal::new(name, self.roles.clone()) }
    }

    /// Whether `sub` can name somebody, also in logs and in the audit log.
    pub(super) fn has_subject(&self) -> bool {
        !self.sub.trim().is_empty()
            && self.sub.chars().count() <= LONGEST_SUBJECT
            && !self.sub.contains(misleads)
    }
}

/// The claim `aud`: one audience or several (RFC 7519, 4.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a string or an array of strings")]
pub enum JwtAudience {
    One(String),
    Several(Vec<String>),
}

impl From<&str> for JwtAudience {
    fn from(audience: &str) -> Self {
        Self::One(audience.to_owned())
    }
}

/// A NumericDate (RFC 7519, 2), which may have a fraction. The fraction is cut off.
fn numeric_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    struct Seconds;
    impl de::Visitor<'_> for Seconds {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("seconds since 1970")
        }

        fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<u64, E> {
            Ok(seconds)
        }

        fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<u64, E> {
            match (0.0..1e15).contains(&seconds) {
                true => Ok(seconds as u64),
                false => Err(E::custom("is no time since 1970")),
            }
        }
    }
    deserializer.deserialize_any(Seconds)
}

/// The roles that this daemon knows. An identity provider may name those of other systems, too.
fn known_roles<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Role>, D::Error> {
    let words = Vec::<String>::deserialize(deserializer)?;
    Ok(words.iter().filter_map(|word| Role::from_word(word)).collect())
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(change: serde_json::Value) -> Result<Claims, serde_json::Error> {
        let mut claims = json!({
            "iss": "crm", "sub": "ann", "aud": "versand", "exp": 2_000_000_000, "iat": 1_900_000_000
        });
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        serde_json::from_value(claims)
    }

    #[test]
    fn claims_of_identity_providers_are_understood() {
        let times = read(json!({ "exp": 2_000_000_000.9, "iat": 1_900_000_000.25 })).unwrap();
        assert_eq!((times.exp, times.iat), (2_000_000_000, 1_900_000_000));
        let several = read(json!({ "aud": ["other", "versand"] })).unwrap();
        assert_eq!(several.aud, JwtAudience::Several(vec!["other".into(), "versand".into()]));
        let roles = read(json!({ "roles": ["offline_access", "monitoring", "uma_authorization"] }));
        assert_eq!(roles.unwrap().roles, [Role::Monitoring]);
        assert!(read(json!({ "groups": ["a"], "azp": "x", "email_verified": true })).is_ok());
    }

    #[test]
    fn malformed_claims_are_refused() {
        for bad in [
            json!({ "exp": -1 }),
            json!({ "exp": -0.5 }),
            json!({ "exp": 1e300 }),
            json!({ "exp": "2000000000" }),
            json!({ "iat": null }),
            json!({ "aud": 1 }),
            json!({ "aud": [1] }),
            json!({ "roles": "monitoring" }),
            json!({ "roles": [1] }),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_single_audience_is_written_as_a_string() {
        let claims = read(json!({})).unwrap();
        assert_eq!(serde_json::to_value(&claims.aud).unwrap(), json!("versand"));
    }

    #[test]
    fn a_subject_names_somebody() {
        for (sub, named) in [("ann", true), ("", false), (" ", false), ("a\nb", false)] {
            assert_eq!(read(json!({ "sub": sub })).unwrap().has_subject(), named, "{sub:?}");
        }
        assert!(!read(json!({ "sub": "x".repeat(201) })).unwrap().has_subject());
    }
}
