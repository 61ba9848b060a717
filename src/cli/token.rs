//! `versand token`: makes a bearer token with the setting that admits it, or signs a JWT.

use std::{fs, io::Write, path::PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use data_encoding::{BASE32_DNSSEC, HEXLOWER};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use sha2::{Digest, Sha256};

use crate::{
    domain::Role,
    identity::{CONFIRM_SEND, Claims},
};

/// The options of `versand token`.
#[derive(Debug, Args)]
pub struct TokenOptions {
    /// The name of the principal that will present the token
    #[arg(long)]
    name: String,
    /// A role of the principal; may be given more than once
    #[arg(long = "role", required = true, value_enum)]
    roles: Vec<RoleWord>,
    /// The unit outside of which the principal sees nothing
    #[arg(long)]
    unit: Option<String>,
    /// Sign a JWT instead, with the private key (PEM) or the secret in this file
    #[arg(long, requires = "issuer")]
    key_file: Option<PathBuf>,
    /// The issuer of the JWT, as in auth.jwt_keys
    #[arg(long)]
    issuer: Option<String>,
    /// HS256, RS256, ES256 or EdDSA
    #[arg(long, default_value = "HS256")]
    algorithm: String,
    /// The audience of the JWT: the daemon's auth.issuer_audience
    #[arg(long, default_value = "versand")]
    audience: String,
    /// How many hours the JWT is valid, 1 to 24
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=24))]
    hours: u64,
    /// The id of a delivery; the JWT is then valid only for a ConfirmSend job of that delivery
    #[arg(long, requires = "digest", requires = "key_file")]
    delivery: Option<String>,
    /// The digest that the job confirms
    #[arg(long, requires = "delivery")]
    digest: Option<String>,
}

/// A role as the command line takes it.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum RoleWord {
    PrepareDeliveries,
    StartDeliveries,
    Administration,
    Monitoring,
    Auditor,
}

impl From<RoleWord> for Role {
    fn from(word: RoleWord) -> Self {
        match word {
            RoleWord::PrepareDeliveries => Self::PrepareDeliveries,
            RoleWord::StartDeliveries => Self::StartDeliveries,
            RoleWord::Administration => Self::Administration,
            RoleWord::Monitoring => Self::Monitoring,
            RoleWord::Auditor => Self::Auditor,
        }
    }
}

/// Writes the token to stdout, so that it can be piped.
///
/// The setting that admits a bearer token goes to stderr.
pub fn run(options: &TokenOptions) -> anyhow::Result<()> {
    let roles: Vec<Role> = options.roles.iter().map(|word| Role::from(*word)).collect();
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    if let (Some(file), Some(issuer)) = (&options.key_file, &options.issuer) {
        writeln!(out, "{}", sign(options, file, issuer, roles)?)?;
        return Ok(());
    }
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
    let token = BASE32_DNSSEC.encode(&bytes);
    let words: Vec<String> = roles.iter().map(|role| format!("{:?}", role.word())).collect();
    writeln!(out, "{token}")?;
    writeln!(
        err,
        "# the daemon stores only the hash; put this into its settings:\n[[auth.tokens]]"
    )?;
    writeln!(
        err,
        "name = {:?}\nsha256 = \"{}\"\nroles = [{}]",
        options.name,
        HEXLOWER.encode(&Sha256::digest(&token)),
        words.join(", ")
    )?;
    if let Some(unit) = &options.unit {
        writeln!(err, "unit = {unit:?}")?;
    }
    Ok(())
}

/// Signs a JWT.
fn sign(
    options: &TokenOptions,
    file: &PathBuf,
    issuer: &str,
    roles: Vec<Role>,
) -> anyhow::Result<String> {
    let bytes = fs::read(file).with_context(|| format!("--key-file {}", file.display()))?;
    let (algorithm, key) = match options.algorithm.as_str() {
        "HS256" => (Algorithm::HS256, EncodingKey::from_secret(bytes.trim_ascii())),
        "RS256" => (Algorithm::RS256, EncodingKey::from_rsa_pem(&bytes)?),
        "ES256" => (Algorithm::ES256, EncodingKey::from_ec_pem(&bytes)?),
        "EdDSA" => (Algorithm::EdDSA, EncodingKey::from_ed_pem(&bytes)?),
        _ => bail!("--algorithm must be HS256, RS256, ES256 or EdDSA"),
    };
    let mut jti = [0; 16];
    getrandom::fill(&mut jti).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
    let now = get_current_timestamp();
    let claims = Claims {
        iss: issuer.to_owned(),
        sub: options.name.clone(),
        aud: options.audience.as_str().into(),
        exp: now + options.hours * 3600,
        iat: now,
        jti: Some(HEXLOWER.encode(&jti)),
        roles,
        unit: options.unit.clone(),
        action: options.delivery.is_some().then(|| CONFIRM_SEND.to_owned()),
        delivery: options.delivery.clone(),
        digest: options.digest.clone(),
    };
    Ok(encode(&Header::new(algorithm), &claims, &key)?)
}
