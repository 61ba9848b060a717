//! Why no connection to Redis can be made, with the name of the setting that is wrong.

use std::time::Duration;

use redis::{ConnectionAddr, ErrorKind};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::durability::info_field;
use crate::config::ConfigError;

/// How long the probe waits for an answer.
const PROBE: Duration = Duration::from_secs(5);

/// Why no connection could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A setting cannot be used.
    #[error("{0}")]
    Settings(#[from] ConfigError),
    /// Redis did not answer or refused.
    #[error("redis.url: {0}")]
    Unavailable(redis::RedisError),
}

/// A refusal of the password or of a certificate is a wrong setting; all else may pass.
impl From<redis::RedisError> for ConnectError {
    fn from(error: redis::RedisError) -> Self {
        let code = error.code().unwrap_or_default();
        let text = error.to_string();
        let is = |word: &str| code == word || text.contains(word);
        let (setting, reason) = if is("NOAUTH") {
            let reason = "Redis asks for a password (NOAUTH): put it into a file, and set this to \
                          the file";
            ("password_file", reason.to_owned())
        } else if is("WRONGPASS") || error.kind() == ErrorKind::AuthenticationFailed {
            ("password_file", "Redis refuses this password or its user (WRONGPASS)".to_owned())
        } else if let Some((setting, reason)) = tls_fault(&text) {
            (setting, format!("{reason}: {text}"))
        } else {
            return Self::Unavailable(error);
        };
        refuse(setting, reason).into()
    }
}

/// The setting that a failed handshake of TLS speaks of, and why. The words are those of rustls and
/// the names of alerts (RFC 8446, 6.2).
fn tls_fault(text: &str) -> Option<(&'static str, &'static str)> {
    let is = |word: &str| text.contains(word);
    if is("NotValidForName") || is("not valid for name") {
        Some(("url", "the certificate of Redis is not for this host"))
    } else if is("invalid peer certificate") {
        Some(("ca_file", "the certificate of Redis is not trusted"))
    } else if is("CertificateRequired") {
        Some(("cert_file", "Redis asks for a certificate of the daemon"))
    } else if ["UnknownCA", "BadCertificate", "CertificateExpired", "CertificateUnknown"]
        .into_iter()
        .any(is)
    {
        Some(("cert_file", "Redis refuses this certificate"))
    } else {
        None
    }
}

fn refuse(setting: &str, reason: impl Into<String>) -> ConfigError {
    ConfigError { setting: format!("redis.{setting}"), reason: reason.into() }
}

/// Checks whether the port speaks TLS just as the URL says. Without this check, a wrong URL only
/// shows as a connection that breaks or hangs.
///
/// # Errors
/// If the port answers in the other way. A port that closes the connection without an answer counts
/// as one with TLS. A port that is silent or out of reach is no error here.
pub(super) async fn check_tls(address: &ConnectionAddr) -> Result<(), ConfigError> {
    let (host, port, wants_tls) = match address {
        ConnectionAddr::Tcp(host, port) => (host, *port, false),
        ConnectionAddr::TcpTls { host, port, .. } => (host, *port, true),
        _ => return Ok(()),
    };
    let asked = async {
        let mut stream = TcpStream::connect((host.as_str(), port)).await.ok()?;
        stream.write_all(b"PING\r\n").await.ok()?;
        let mut first = [0];
        // a server of TLS closes the connection, perhaps after an alert
        Some(match stream.read(&mut first).await {
            Ok(1) => matches!(first[0], b'+' | b'-'),
            _ => false,
        })
    };
    match timeout(PROBE, asked).await {
        Ok(Some(true)) if wants_tls => {
            Err(refuse("url", "the port speaks no TLS: write redis:// instead of rediss://"))
        }
        Ok(Some(false)) if !wants_tls => Err(refuse(
            "url",
            "the port does not speak Redis without TLS: write rediss:// if it is one with TLS",
        )),
        _ => Ok(()),
    }
}

/// Checks that the server keeps data, and all of it. `info` is its answer to INFO.
///
/// # Errors
/// If it is a Sentinel or a node of a cluster.
pub(super) fn check_mode(info: &str) -> Result<(), ConfigError> {
    match info_field(info, "redis_mode") {
        "sentinel" => Err(refuse(
            "url",
            "this is a Sentinel, which keeps no data: name the Redis that it watches",
        )),
        "cluster" => Err(refuse(
            "url",
            "this is a node of a Redis cluster: Versand needs one Redis with all keys, with \
             replicas if you like",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentinel_and_a_node_of_a_cluster_are_refused() {
        let info =
            |mode: &str| format!("# Server\r\nredis_version:7.0.15\r\nredis_mode:{mode}\r\n");
        assert!(check_mode(&info("standalone")).is_ok());
        assert!(check_mode("").is_ok());
        let refused = |mode: &str| check_mode(&info(mode)).unwrap_err().to_string();
        assert!(refused("sentinel").starts_with("redis.url: this is a Sentinel"));
        assert!(refused("cluster").starts_with("redis.url: this is a node"));
    }
}
