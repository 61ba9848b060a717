//! Reads the roots that a Redis with TLS is checked against, and the certificate of the daemon.

use std::path::Path;

use redis::{ClientTlsConfig, TlsCertificates};
use tokio_rustls::rustls::{
    RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use crate::config::{ConfigError, RedisSettings};

/// The files of the settings, checked. `None` if the settings name none.
///
/// # Errors
/// If a file cannot be read or holds something else, or the key is not that of the certificate.
pub(super) fn tls_certificates(
    settings: &RedisSettings,
) -> Result<Option<TlsCertificates>, ConfigError> {
    let has = |file: &Path| !file.as_os_str().is_empty();
    let root_cert = match has(&settings.ca_file) {
        true => Some(roots(&settings.ca_file)?),
        false => None,
    };
    let client_tls = match has(&settings.cert_file) {
        true => Some(own_certificate(&settings.cert_file, &settings.key_file)?),
        false => None,
    };
    let is_used = root_cert.is_some() || client_tls.is_some();
    Ok(is_used.then_some(TlsCertificates { client_tls, root_cert }))
}

fn roots(file: &Path) -> Result<Vec<u8>, ConfigError> {
    let pem = read("ca_file", file)?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ca_file", file, &pem)? {
        roots.add(certificate).map_err(|e| refuse("ca_file", file, &e))?;
    }
    Ok(pem)
}

fn own_certificate(cert_file: &Path, key_file: &Path) -> Result<ClientTlsConfig, ConfigError> {
    let (client_cert, client_key) = (read("cert_file", cert_file)?, read("key_file", key_file)?);
    let chain = certificates("cert_file", cert_file, &client_cert)?;
    let key =
        PrivateKeyDer::from_pem_slice(&client_key).map_err(|e| refuse("key_file", key_file, &e))?;
    let fits = CertifiedKey::from_der(chain, key, &default_provider());
    fits.map_err(|e| refuse("key_file", key_file, &format!("is not the key of cert_file: {e}")))?;
    Ok(ClientTlsConfig { client_cert, client_key })
}

fn certificates(
    setting: &str,
    file: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all.map_err(|e| refuse(setting, file, &e))? {
        none if none.is_empty() => Err(refuse(setting, file, &"holds no certificate")),
        all => Ok(all),
    }
}

fn read(setting: &str, file: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(file).map_err(|e| refuse(setting, file, &e))
}

fn refuse(setting: &str, file: &Path, reason: &dyn std::fmt::Display) -> ConfigError {
    ConfigError {
        setting: format!("redis.{setting}"),
        reason: format!("{}: {reason}", file.display()),
    }
}
