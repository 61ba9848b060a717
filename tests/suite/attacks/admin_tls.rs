//! TLS of the admin listener: plain HTTP, handshakes that never end, and bad certificates.

use std::{fs, net::SocketAddr, path::Path, process::Command, sync::Arc};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, pem::PemObject},
    },
};

use super::floods::{allow_many_files, connect_from, flood};
use crate::harness::{LIMIT, app::App, eventually, redis::RedisServer, run_to_end};

/// Writes a new certificate and its key. The certificate is its own root.
fn new_certificate(folder: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    made.cert.pem()
}

fn settings(folder: &TempDir) -> String {
    let file = |name: &str| folder.path().join(name);
    format!(
        "[server]\ntls_cert_file = {:?}\ntls_key_file = {:?}\n",
        file("cert.pem"),
        file("key.pem")
    )
}

fn address(app: &App) -> SocketAddr {
    app.client.url.strip_prefix("http://").unwrap().parse().unwrap()
}

async fn ask(address: SocketAddr, root: &str) -> std::io::Result<(String, Option<Vec<u8>>)> {
    ask_for("/healthz", address, root).await
}

/// Asks over TLS and trusts only this root. Returns the answer and the agreed protocol.
async fn ask_for(
    path: &str,
    address: SocketAddr,
    root: &str,
) -> std::io::Result<(String, Option<Vec<u8>>)> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = connect_from([127, 0, 0, 9].into(), address).await;
    let name = "127.0.0.1".try_into().unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok((answer, protocol))
}

/// Waits until the metric has this value. The certificate of `root` is served meanwhile.
async fn certificate_is(address: SocketAddr, root: &str, good: u8) {
    let line = format!("versand_certificate_good {good}\n");
    eventually("the metric of the certificate", LIMIT, async || {
        let (answer, _) = ask_for("/metrics", address, root).await.expect("it is still served");
        answer.contains(&line).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_served_and_a_bad_one_is_not() {
    let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let first = new_certificate(folder.path());
    let app = App::start(&redis, &settings(&folder)).await;
    let address = address(&app);
    let (answer, protocol) = ask(address, &first).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(protocol.as_deref(), Some(&b"http/1.1"[..]));

    let second = new_certificate(folder.path());
    eventually("the new certificate", LIMIT, async || ask(address, &second).await.ok()).await;
    assert!(ask(address, &first).await.is_err(), "the old certificate is still served");

    // First the key belongs to another certificate, then the key file is empty. From here on a
    // reload reads the files at once.
    fs::write(folder.path().join("cert.pem"), &first).unwrap();
    app.reload();
    certificate_is(address, &second, 0).await;
    fs::write(folder.path().join("key.pem"), "").unwrap();
    app.reload();
    certificate_is(address, &second, 0).await;
    let third = new_certificate(folder.path());
    app.reload();
    ask(address, &third).await.expect("the third certificate is served");
    certificate_is(address, &third, 1).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_never_end_keep_nobody_out() {
    allow_many_files();
    let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let root = new_certificate(folder.path());
    let settings = format!("{}connections = 50\nhead_timeout_ms = 60000\n", settings(&folder));
    let app = App::start(&redis, &settings).await;
    let address = address(&app);
    // Nothing, the first bytes of a ClientHello, and plain HTTP.
    for text in ["", "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"]
    {
        let _open = flood(address, 150, 30, text).await;
        for _ in 0..10 {
            let (answer, _) = ask(address, &root).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
    }
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "plain HTTP was answered on the TLS listener");
    app.stop().await;
}

fn versand(arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_versand"));
    let output = run_to_end(command.args(arguments), LIMIT);
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_speaks_https_and_trusts_no_other_root() {
    let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    new_certificate(folder.path());
    let app = App::start(&redis, &settings(&folder)).await;
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(file("other.pem"), other.cert.pem()).unwrap();
    fs::write(file("token"), &app.client.token).unwrap();
    fs::write(file("empty.pem"), "").unwrap();
    let url = format!("https://{}", address(&app));
    let list = |more: &[&str]| {
        let own = ["jobs", "list", "--url", &url, "--token-file", &file("token")];
        versand(&[&own, more].concat())
    };
    let (good, text) = tokio::task::block_in_place(|| list(&["--ca-file", &file("cert.pem")]));
    assert!(good, "{text}");
    for refused in [&["--ca-file", &file("other.pem")][..], &["--ca-file", &file("empty.pem")], &[]]
    {
        let (good, text) = tokio::task::block_in_place(|| list(refused));
        assert!(!good && text.lines().count() == 1, "{refused:?}: {text}");
    }
    app.stop().await;
}

#[test]
fn tokens_in_clear_text_beyond_loopback_are_refused_unless_permitted() {
    let folder = tempfile::tempdir().unwrap();
    new_certificate(folder.path());
    let check = |settings: &str| {
        let file = folder.path().join("settings.toml");
        fs::write(&file, settings).unwrap();
        versand(&["check-config", "--config", file.to_str().unwrap()])
    };
    for listen in ["0.0.0.0:8025", "[::]:8025", "192.0.2.1:8025", "[::ffff:192.0.2.1]:8025"] {
        let plain = format!("[server]\nlisten = \"{listen}\"\n");
        let (good, text) = check(&plain);
        assert!(
            !good && text.contains("server.listen") && text.contains("tls_cert_file"),
            "{text}"
        );
        let permitted = format!("{plain}allow_plaintext = true\n");
        let secured = format!("{plain}{}", settings(&folder).trim_start_matches("[server]"));
        for settings in [permitted, secured] {
            let (good, text) = check(&settings);
            assert!(good, "{settings}: {text}");
        }
    }
    for listen in ["127.0.0.1:8025", "127.9.9.9:8025", "[::1]:8025", "[::ffff:127.0.0.1]:8025"] {
        let (good, text) = check(&format!("[server]\nlisten = \"{listen}\"\n"));
        assert!(good, "{listen}: {text}");
    }
    let half = settings(&folder).lines().take(2).collect::<Vec<_>>().join("\n");
    let (good, text) = check(&half);
    assert!(!good && text.contains("server.tls_key_file"), "{text}");
    fs::write(folder.path().join("key.pem"), "nothing").unwrap();
    let (good, text) = check(&settings(&folder));
    assert!(!good && text.contains("server.tls_key_file"), "{text}");
}
