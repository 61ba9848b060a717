//! TLS of the admin listener: certificate and key from files, read again when these change.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
};

use crate::{
    config::{ConfigError, ServerSettings},
    metrics,
};

/// The TLS of a listener. The clones share the certificate.
#[derive(Clone)]
pub struct ListenerTls(Arc<TlsState>);

struct TlsState {
    acceptor: TlsAcceptor,
    served: Arc<ServedCertificate>,
    certificate_file: PathBuf,
    key_file: PathBuf,
    /// The contents of both files when they were read last, whether they were good or not. `None`
    /// if a file could not be read.
    read: Mutex<Option<(Vec<u8>, Vec<u8>)>>,
}

/// The certificate that new connections get.
#[derive(Debug)]
struct ServedCertificate(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for ServedCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl ListenerTls {
    /// The TLS of the settings; none without a certificate.
    ///
    /// # Errors
    /// A file cannot be read or holds no certificate or key, or the key is not that of the
    /// certificate.
    pub fn new(server: &ServerSettings) -> Result<Option<Self>, ConfigError> {
        if server.tls_cert_file.as_os_str().is_empty() {
            return Ok(None);
        }
        let files = (
            read("server.tls_cert_file", &server.tls_cert_file)?,
            read("server.tls_key_file", &server.tls_key_file)?,
        );
        let provider = Arc::new(ring::default_provider());
        let key = Arc::new(certified_key(&files, &provider)?);
        let served = Arc::new(ServedCertificate(RwLock::new(key)));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| refuse("server.tls_cert_file", e))?
            .with_no_client_auth()
            .with_cert_resolver(served.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Some(Self(Arc::new(TlsState {
            acceptor: Arc::new(config).into(),
            served,
            certificate_file: server.tls_cert_file.clone(),
            key_file: server.tls_key_file.clone(),
            read: Mutex::new(Some(files)),
        }))))
    }

    /// Makes connections secure.
    pub(super) fn acceptor(&self) -> &TlsAcceptor {
        &self.0.acceptor
    }

    /// Reads the files again, and serves the new certificate if they have changed. Connections
    /// that are open keep theirs. If the new certificate cannot be used, the old one stays, and one
    /// error line says why.
    pub fn reload(&self) {
        let mut last = self.0.read.lock().unwrap_or_else(PoisonError::into_inner);
        let new = read("server.tls_cert_file", &self.0.certificate_file).and_then(|certificate| {
            Ok((certificate, read("server.tls_key_file", &self.0.key_file)?))
        });
        let files = match new {
            Ok(files) if last.as_ref() == Some(&files) => return,
            Ok(files) => files,
            Err(error) => {
                metrics::certificate(false);
                if last.take().is_some() {
                    tracing::error!(%error, "the old certificate stays in use");
                }
                return;
            }
        };
        match certified_key(&files, &ring::default_provider()) {
            Ok(key) => {
                metrics::certificate(true);
                *self.0.served.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                tracing::info!("the admin listener has a new certificate");
            }
            Err(error) => {
                metrics::certificate(false);
                tracing::error!(%error, "the old certificate stays in use");
            }
        }
        *last = Some(files);
    }
}

fn refuse(setting: &str, reason: impl ToString) -> ConfigError {
    ConfigError { setting: setting.to_owned(), reason: reason.to_string() }
}

fn read(setting: &str, file: &Path) -> Result<Vec<u8>, ConfigError> {
    fs::read(file).map_err(|e| refuse(setting, format!("{}: {e}", file.display())))
}

fn certified_key(
    (certificate, key): &(Vec<u8>, Vec<u8>),
    provider: &CryptoProvider,
) -> Result<CertifiedKey, ConfigError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|e| refuse("server.tls_cert_file", e))?;
    if chain.is_empty() {
        return Err(refuse("server.tls_cert_file", "holds no certificate in PEM"));
    }
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| refuse("server.tls_key_file", "holds no private key in PEM"))?;
    CertifiedKey::from_der(chain, key, provider)
        .map_err(|e| refuse("server.tls_key_file", format!("does not fit the certificate: {e}")))
}
