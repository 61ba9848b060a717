//! TLS to a real Redis that asks its clients for certificates.

use std::{fs, net::TcpListener, path::PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::start_errors::{NO_RESTART, refused};
use crate::harness::{
    client::{audience, definition},
    daemon::Daemon,
    redis::RedisServer,
};

/// A folder with the certificates of an authority, a server and a client, and of strangers.
struct Certificates {
    folder: TempDir,
}

impl Certificates {
    fn new() -> Self {
        let certificates = Self { folder: tempfile::tempdir().unwrap() };
        for (root, leaves) in
            [("ca", &["server", "client"][..]), ("other-ca", &["stranger", "impostor"])]
        {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(rcgen::DnType::CommonName, root);
            certificates.write(root, &params.self_signed(&key).unwrap().pem(), &key);
            let issuer = Issuer::new(params, key);
            for leaf in leaves {
                let key = KeyPair::generate().unwrap();
                let name = if *leaf == "server" { "127.0.0.1" } else { *leaf };
                let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
                let made = params.signed_by(&key, &issuer).unwrap();
                certificates.write(leaf, &made.pem(), &key);
            }
        }
        certificates
    }

    fn write(&self, name: &str, certificate: &str, key: &KeyPair) {
        fs::write(self.file(&format!("{name}.pem")), certificate).unwrap();
        fs::write(self.file(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A redis-server that shows the certificate of `server` and wants one of the authority.
    fn redis(&self, server: &str) -> (RedisServer, u16) {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        drop(taken);
        let [cert, key] = ["pem", "key"].map(|end| self.path(&format!("{server}.{end}")));
        let [port_text, ca] = [port.to_string(), self.path("ca.pem")];
        let options = [
            ["--tls-port", &port_text],
            ["--bind", "127.0.0.1"],
            ["--tls-cert-file", &cert],
            ["--tls-key-file", &key],
            ["--tls-ca-cert-file", &ca],
            ["--tls-auth-clients", "yes"],
        ];
        (RedisServer::start_with(options.as_flattened()), port)
    }

    fn path(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }

    /// The section with these files; "" leaves one out.
    fn section(&self, url: &str, ca: &str, certificate: &str, key: &str) -> String {
        let mut section = format!("[redis]\nurl = \"{url}\"\n");
        for (setting, name) in [("ca_file", ca), ("cert_file", certificate), ("key_file", key)] {
            if !name.is_empty() {
                section += &format!("{setting} = {:?}\n", self.file(name));
            }
        }
        section
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_sends_over_a_redis_that_asks_for_its_certificate() {
    let certificates = Certificates::new();
    let (redis, port) = certificates.redis("server");
    let url = format!("rediss://versand@127.0.0.1:{port}");
    let section = certificates.section(&url, "ca.pem", "client.pem", "client.key");
    let password = redis.settings().password_file;
    let settings = format!("{section}password_file = {password:?}\n");
    let mut daemon = Daemon::start(&settings).await;
    let id = daemon.client.send(&definition(), audience(5)).await;
    daemon.client.wait_for(&id, &["finished"]).await;
    assert!(daemon.terminate().await.success());
}

#[test]
fn a_wrong_authority_certificate_or_key_is_named() {
    let certificates = Certificates::new();
    let (_redis, port) = certificates.redis("server");
    let refused_at = |port: u16, host: &str, files: [&str; 3], words: &[&str]| {
        let url = format!("rediss://{host}:{port}");
        let section = certificates.section(&url, files[0], files[1], files[2]);
        refused(&section, NO_RESTART, words);
    };
    let here = "127.0.0.1";
    // Without the authority, and with another one.
    let own = ["client.pem", "client.key"];
    refused_at(port, here, ["", own[0], own[1]], &["redis.ca_file", "UnknownIssuer"]);
    refused_at(port, here, ["other-ca.pem", own[0], own[1]], &["redis.ca_file", "UnknownIssuer"]);
    // The certificate is for 127.0.0.1.
    refused_at(port, "localhost", ["ca.pem", own[0], own[1]], &["redis.url", "not for this host"]);
    // No certificate, and one that the server does not trust.
    refused_at(port, here, ["ca.pem", "", ""], &["redis.cert_file", "asks for a certificate"]);
    let foreign = ["ca.pem", "stranger.pem", "stranger.key"];
    refused_at(port, here, foreign, &["redis.cert_file", "refuses this certificate"]);
    // A server that somebody else has put there.
    let (_impostor, port) = certificates.redis("impostor");
    refused_at(port, here, ["ca.pem", own[0], own[1]], &["redis.ca_file", "UnknownIssuer"]);
}

#[test]
fn files_that_cannot_be_used_are_named_before_any_connection() {
    let certificates = Certificates::new();
    fs::write(certificates.file("empty.pem"), "").unwrap();
    let refused_with = |url: &str, files: [&str; 3], words: &[&str]| {
        let section = certificates.section(url, files[0], files[1], files[2]);
        refused(&section, NO_RESTART, words);
    };
    let tls = "rediss://127.0.0.1:1";
    for (files, words) in [
        (["nowhere.pem", "", ""], ["redis.ca_file", "No such file"]),
        (["empty.pem", "", ""], ["redis.ca_file", "holds no certificate"]),
        (["client.key", "", ""], ["redis.ca_file", "holds no certificate"]),
        (["ca.pem", "client.pem", ""], ["redis.key_file", "is needed with"]),
        (["ca.pem", "", "client.key"], ["redis.cert_file", "is needed with"]),
        (["ca.pem", "empty.pem", "client.key"], ["redis.cert_file", "holds no certificate"]),
        (["ca.pem", "client.pem", "empty.pem"], ["redis.key_file", "empty.pem"]),
        (["ca.pem", "client.pem", "stranger.key"], ["redis.key_file", "is not the key of"]),
    ] {
        refused_with(tls, files, &words);
    }
    for url in ["", "redis://127.0.0.1:1", "redis+unix:///nowhere/redis.sock"] {
        refused_with(url, ["ca.pem", "", ""], &["redis.ca_file", "rediss://"]);
        refused_with(url, ["", "client.pem", "client.key"], &["redis.cert_file", "rediss://"]);
    }
}
