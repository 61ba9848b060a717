//! Opens a connection: TCP, greeting, EHLO, STARTTLS, AUTH.
//!
//! An error while a connection opens is a [`RelayFault`]. A setting that cannot be used is a
//! [`RelayError`].

use std::{path::Path, sync::Arc, time::Duration};

use lettre::transport::smtp::{
    authentication::{Credentials, Mechanism},
    commands::{Auth, Ehlo},
    extension::ClientId,
    response::Response,
};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        self, ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use super::{
    fault::{RelayError, RelayFault},
    wire::{Wire, WireError, within},
};
use crate::{config, domain::outcome::Reply};

/// The extensions that a server offers, as far as they are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServerExtensions {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// SIZE (RFC 1870).
    pub size: bool,
    starttls: bool,
    plain: bool,
    login: bool,
}

/// Where and how to connect to a relay. The settings are checked once.
pub struct RelayTarget {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// TLS begins before the greeting (RFC 8314, 3.3).
    implicit_tls: bool,
    credentials: Option<Credentials>,
    /// The argument of EHLO. `None`: the address literal of this end (RFC 5321, 4.1.4).
    hello_name: Option<String>,
    connect_timeout: Duration,
    command_timeout: Duration,
}

impl RelayTarget {
    /// Checks the settings, and reads the files that they name.
    ///
    /// # Errors
    ///
    /// A setting that cannot be used.
    pub fn new(settings: &config::RelaySettings) -> Result<Self, RelayError> {
        let tls = match settings.tls {
            config::Tls::None => None,
            config::Tls::Starttls | config::Tls::Implicit => {
                let name = ServerName::try_from(settings.host.clone())
                    .map_err(|e| refuse("host", &e.to_string()))?;
                Some((connector(&settings.ca_file)?, name))
            }
        };
        Ok(Self {
            host: settings.host.clone(),
            port: settings.port,
            tls,
            implicit_tls: settings.tls == config::Tls::Implicit,
            credentials: credentials(settings)?,
            hello_name: hello_name(&settings.hello_name)?,
            connect_timeout: Duration::from_millis(settings.connect_timeout_ms),
            command_timeout: Duration::from_millis(settings.command_timeout_ms),
        })
    }

    /// Host and port.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Opens a connection that is ready for MAIL.
    ///
    /// # Errors
    ///
    /// The step that failed.
    pub async fn open(&self) -> Result<(Wire, ServerExtensions), RelayFault> {
        let mut wire = within(self.connect_timeout, self.connect())
            .await
            .map_err(|e| RelayFault::wire("connect", &e))?;
        let greeting =
            wire.reply(self.command_timeout).await.map_err(|e| RelayFault::wire("greeting", &e))?;
        expect("greeting", &greeting, 220)?;
        let mut extensions = self.hello(&mut wire).await?;
        if !self.implicit_tls
            && let Some((tls, name)) = &self.tls
        {
            if !extensions.starttls {
                return Err(RelayFault::new("STARTTLS", "not offered by the server"));
            }
            expect("STARTTLS", &self.command(&mut wire, "STARTTLS", "STARTTLS\r\n").await?, 220)?;
            wire = within(self.connect_timeout, wire.secured(tls, name.clone()))
                .await
                .map_err(|e| RelayFault::wire("STARTTLS", &e))?;
            // Extensions that were offered without TLS do not count (RFC 3207, 4.2).
            extensions = self.hello(&mut wire).await?;
        }
        if let Some(credentials) = &self.credentials {
            self.authenticate(&mut wire, extensions, credentials).await?;
        }
        Ok((wire, extensions))
    }

    async fn connect(&self) -> Result<Wire, WireError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        // Without this, a write waits up to 40 ms for the acknowledgement of the write before.
        stream.set_nodelay(true)?;
        let wire = Wire::new(stream);
        match &self.tls {
            Some((tls, name)) if self.implicit_tls => wire.secured(tls, name.clone()).await,
            _ => Ok(wire),
        }
    }

    async fn command(
        &self,
        wire: &mut Wire,
        step: &'static str,
        line: &str,
    ) -> Result<Reply, RelayFault> {
        wire.write(line.as_bytes(), self.command_timeout)
            .await
            .map_err(|e| RelayFault::wire(step, &e))?;
        wire.reply(self.command_timeout).await.map_err(|e| RelayFault::wire(step, &e))
    }

    async fn hello(&self, wire: &mut Wire) -> Result<ServerExtensions, RelayFault> {
        let name = match (&self.hello_name, wire.local_ip()) {
            (Some(name), _) => ClientId::Domain(name.clone()),
            (None, Some(std::net::IpAddr::V4(ip))) => ClientId::Ipv4(ip),
            (None, Some(std::net::IpAddr::V6(ip))) => ClientId::Ipv6(ip),
            (None, None) => ClientId::default(),
        };
        let line = Ehlo::new(name).to_string();
        wire.write(line.as_bytes(), self.command_timeout)
            .await
            .map_err(|e| RelayFault::wire("EHLO", &e))?;
        let lines = wire
            .reply_lines(self.command_timeout)
            .await
            .map_err(|e| RelayFault::wire("EHLO", &e))?;
        let reply =
            Reply::parse(&lines).map_err(|_| RelayFault::wire("EHLO", &WireError::Garbage))?;
        expect("EHLO", &reply, 250)?;
        Ok(extensions(&lines))
    }

    async fn authenticate(
        &self,
        wire: &mut Wire,
        extensions: ServerExtensions,
        credentials: &Credentials,
    ) -> Result<(), RelayFault> {
        if !wire.is_secured() {
            return Err(RelayFault::new("AUTH", "needs TLS"));
        }
        let mechanism = match extensions {
            ServerExtensions { plain: true, .. } => Mechanism::Plain,
            ServerExtensions { login: true, .. } => Mechanism::Login,
            _ => return Err(RelayFault::new("AUTH", "neither PLAIN nor LOGIN offered")),
        };
        let not_understood = |_| RelayFault::new("AUTH", "challenge not understood");
        let mut auth = Auth::new(mechanism, credentials.clone(), None).map_err(not_understood)?;
        // LOGIN has two challenges. A server with more does not follow the mechanism.
        for _ in 0..3 {
            let reply = self.command(wire, "AUTH", &auth.to_string()).await?;
            if reply.code != 334 {
                return expect("AUTH", &reply, 235);
            }
            let challenge: Response = format!("{reply}\r\n").parse().map_err(not_understood)?;
            auth = Auth::new_from_response(mechanism, credentials.clone(), &challenge)
                .map_err(not_understood)?;
        }
        Err(RelayFault::new("AUTH", "too many challenges"))
    }
}

fn refuse(setting: &'static str, reason: &str) -> RelayError {
    RelayError { setting: format!("relay.{setting}"), reason: reason.replace('\n', " ") }
}

fn expect(step: &'static str, reply: &Reply, code: u16) -> Result<(), RelayFault> {
    if reply.code == code { Ok(()) } else { Err(RelayFault::reply(step, reply)) }
}

/// The extensions in the reply to EHLO.
///
/// Keywords are case-insensitive (RFC 5321, 2.4). Some old servers write `AUTH=PLAIN`.
fn extensions(lines: &str) -> ServerExtensions {
    let mut extensions = ServerExtensions::default();
    for line in lines.lines().skip(1) {
        let line = line.get(4..).unwrap_or("").to_ascii_uppercase();
        let mut words = line.split([' ', '=', '\t']);
        match words.next() {
            Some("PIPELINING") => extensions.pipelining = true,
            Some("SIZE") => extensions.size = true,
            Some("STARTTLS") => extensions.starttls = true,
            Some("AUTH") => {
                for word in words {
                    extensions.plain |= word == "PLAIN";
                    extensions.login |= word == "LOGIN";
                }
            }
            _ => {}
        }
    }
    extensions
}

fn connector(ca_file: &Path) -> Result<TlsConnector, RelayError> {
    let mut roots = RootCertStore::empty();
    if ca_file.as_os_str().is_empty() {
        // Some certificates of a machine may not parse. The others are used.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    } else {
        let unreadable =
            |e: &dyn std::fmt::Display| refuse("ca_file", &format!("{}: {e}", ca_file.display()));
        for certificate in CertificateDer::pem_file_iter(ca_file).map_err(|e| unreadable(&e))? {
            roots.add(certificate.map_err(|e| unreadable(&e))?).map_err(|e| unreadable(&e))?;
        }
    }
    if roots.is_empty() {
        return Err(refuse("ca_file", "holds no certificate"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| refuse("tls", &e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn credentials(settings: &config::RelaySettings) -> Result<Option<Credentials>, RelayError> {
    if settings.username.is_empty() {
        return Ok(None);
    }
    let password =
        config::secret(&settings.password_file).map_err(|e| refuse("password_file", &e))?;
    Ok(Some(Credentials::new(settings.username.clone(), password)))
}

fn hello_name(setting: &str) -> Result<Option<String>, RelayError> {
    if !setting.is_empty() {
        return if setting.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Some(setting.to_owned()))
        } else {
            Err(refuse("hello_name", "must be a host name in ASCII"))
        };
    }
    // Servers often refuse a host name without a domain.
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    let has_domain =
        name.contains('.') && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
    Ok(has_domain.then(|| name.to_owned()))
}
