//! TLS and AUTH against a server in this file, which takes its answers from the test.

use std::sync::{Arc, atomic::Ordering};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};
use tokio_util::task::TaskTracker;
use versand::{
    config::{self, Config, Tls},
    mail::{
        catcher::{Catcher, CatcherOptions},
        smtp::{Relay, RelayFault, Transaction},
    },
};

use crate::harness::smtp::{FROM, MESSAGE, deliver, fault, file, relay};

const HELLO: &str = "250-tls.example\r\n250-auth login PLAIN\r\n250 PIPELINING";
/// The client's AUTH PLAIN command for the user name `user` and the password `secret`.
const PLAIN: &str = "AUTH PLAIN AHVzZXIAc2VjcmV0";

struct Server {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    folder: TempDir,
}

impl Server {
    async fn new(name: &str) -> Self {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        file(&folder, "ca.pem", &made.cert.pem());
        file(&folder, "password", "secret\nnot this\n");
        let key =
            PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
        let certificate = CertificateDer::from(made.cert.der().to_vec());
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)), folder }
    }

    fn settings(&self, relay: &mut config::RelaySettings, tls: Tls) {
        relay.host = "localhost".into();
        relay.port = self.listener.local_addr().unwrap().port();
        relay.tls = tls;
        relay.ca_file = self.folder.path().join("ca.pem");
    }

    fn relay(&self, tls: Tls) -> Relay {
        relay(|relay| self.settings(relay, tls))
    }

    fn relay_with_password(&self, tls: Tls) -> Relay {
        relay(|relay| {
            self.settings(relay, tls);
            relay.username = "user".into();
            relay.password_file = self.folder.path().join("password");
        })
    }

    async fn accept(&self) -> TcpStream {
        // The client may try `localhost` as ::1 first. The server listens on 127.0.0.1 only.
        self.listener.accept().await.unwrap().0
    }

    /// Serves with implicit TLS. Returns the lines of the client.
    async fn implicit(&self, replies: &[&str]) -> Vec<String> {
        let stream = self.acceptor.accept(self.accept().await).await.unwrap();
        talk(stream, Some("220 ready"), replies).await
    }

    /// Serves without TLS up to the reply to STARTTLS, and then over TLS.
    async fn starttls(&self, clear: &[&str], secured: &[&str]) -> Vec<String> {
        let mut stream = self.accept().await;
        let mut heard = talk(&mut stream, Some("220 ready"), clear).await;
        if let Ok(stream) = self.acceptor.accept(stream).await {
            heard.push("(TLS)".into());
            heard.extend(talk(stream, None, secured).await);
        }
        heard
    }
}

/// Writes one reply for each line of the client.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    greeting: Option<&str>,
    replies: &[&str],
) -> Vec<String> {
    let mut stream = BufReader::new(stream);
    let mut heard = Vec::new();
    if let Some(greeting) = greeting {
        stream.write_all(format!("{greeting}\r\n").as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
    }
    for reply in replies {
        let mut line = String::new();
        if !matches!(stream.read_line(&mut line).await, Ok(1..)) {
            break;
        }
        heard.push(line.trim_end().to_owned());
        stream.write_all(format!("{reply}\r\n").as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
    }
    heard
}

/// Runs the server while the relay opens a connection. The connection must fail.
async fn failing(
    server: impl Future<Output = Vec<String>>,
    relay: &Relay,
) -> (Vec<String>, RelayFault) {
    tokio::join!(server, fault(relay))
}

async fn opened(relay: &Relay) {
    assert!(relay.connection().await.map(|_| ()).is_ok());
}

#[tokio::test]
async fn passwords_are_sent_over_tls_with_plain_or_login() {
    let server = Server::new("localhost").await;
    let relay = server.relay_with_password(Tls::Implicit);
    let (heard, ()) = tokio::join!(server.implicit(&[HELLO, "235 2.7.0 ok"]), opened(&relay));
    assert_eq!(heard, ["EHLO client.example", PLAIN]);
    let only_login = ["250-x\r\n250 AUTH=LOGIN", "334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6", "235 ok"];
    let relay = server.relay_with_password(Tls::Implicit);
    let (heard, ()) = tokio::join!(server.implicit(&only_login), opened(&relay));
    assert_eq!(heard, ["EHLO client.example", "AUTH LOGIN", "dXNlcg==", "c2VjcmV0"]);
    let clear = ["250-x\r\n250-AUTH PLAIN\r\n250 starttls", "220 go"];
    let relay = server.relay_with_password(Tls::Starttls);
    let (heard, ()) = tokio::join!(server.starttls(&clear, &[HELLO, "235 ok"]), opened(&relay));
    assert_eq!(heard, ["EHLO client.example", "STARTTLS", "(TLS)", "EHLO client.example", PLAIN]);
}

#[tokio::test]
async fn a_wrong_password_is_the_relays_fault() {
    let server = Server::new("localhost").await;
    let relay = server.relay_with_password(Tls::Implicit);
    let refusal = "535 5.7.8 Error: authentication failed for user@shop.example";
    let (_, fault) = failing(server.implicit(&[HELLO, refusal]), &relay).await;
    assert_eq!(fault.to_string(), "AUTH: 535 5.7.8 Error: authentication failed for");
    assert_eq!(relay.stats().faults.load(Ordering::Relaxed), 1);
    let relay = server.relay_with_password(Tls::Implicit);
    let (_, fault) = failing(server.implicit(&["250-x\r\n250 AUTH CRAM-MD5"]), &relay).await;
    assert_eq!(fault.to_string(), "AUTH: neither PLAIN nor LOGIN offered");
    let relay = server.relay_with_password(Tls::Implicit);
    let endless = [
        "250-x\r\n250 AUTH LOGIN",
        "334 VXNlcm5hbWU6",
        "334 VXNlcm5hbWU6",
        "334 VXNlcm5hbWU6",
        "334 VXNlcm5hbWU6",
    ];
    let (_, fault) = failing(server.implicit(&endless), &relay).await;
    assert_eq!(fault.to_string(), "AUTH: too many challenges");
}

#[tokio::test]
async fn without_starttls_no_password_is_sent_unencrypted() {
    let server = Server::new("localhost").await;
    let relay = server.relay_with_password(Tls::Starttls);
    let (heard, fault) =
        failing(server.starttls(&["250-x\r\n250 AUTH PLAIN", "250 ?"], &[]), &relay).await;
    assert_eq!(fault.to_string(), "STARTTLS: not offered by the server");
    assert_eq!(heard, ["EHLO client.example"]);
    let relay = server.relay_with_password(Tls::Starttls);
    let refused = ["250-x\r\n250 STARTTLS", "454 4.7.0 not now", "250 ?"];
    let (heard, fault) = failing(server.starttls(&refused, &[]), &relay).await;
    assert_eq!(fault.to_string(), "STARTTLS: 454 4.7.0 not now");
    assert_eq!(heard, ["EHLO client.example", "STARTTLS"]);
    // Text that an attacker injects before TLS must not count as an answer over TLS.
    let relay = server.relay(Tls::Starttls);
    let injected = ["250-x\r\n250 STARTTLS", "220 go\r\n250 AUTH PLAIN"];
    let (_, fault) = failing(server.starttls(&injected, &[HELLO]), &relay).await;
    assert_eq!(fault.to_string(), "STARTTLS: not an SMTP reply");
}

#[tokio::test]
async fn a_certificate_must_be_trusted_and_match_the_name() {
    let server = Server::new("localhost").await;
    let stranger = Server::new("localhost").await;
    let untrusting = relay(|relay| {
        server.settings(relay, Tls::Implicit);
        relay.ca_file = stranger.folder.path().join("ca.pem");
    });
    let accept = async { server.acceptor.accept(server.accept().await).await.is_err() };
    let (refused, fault) = tokio::join!(accept, fault(&untrusting));
    assert!(
        refused && fault.to_string().starts_with("connect: TLS: invalid peer certificate"),
        "{fault}"
    );
    let other = Server::new("other.example").await;
    let relay = other.relay(Tls::Starttls);
    let (_, fault) =
        failing(other.starttls(&["250-x\r\n250 STARTTLS", "220 go"], &[]), &relay).await;
    assert!(fault.to_string().starts_with("STARTTLS: TLS: invalid peer certificate"), "{fault}");
}

#[tokio::test]
async fn a_server_without_ehlo_is_a_fault() {
    let server = Server::new("localhost").await;
    let plain = relay(|relay| server.settings(relay, Tls::None));
    let talk = async { talk(server.accept().await, Some("220 old"), &["502 5.5.1 what"]).await };
    let (heard, fault) = failing(talk, &plain).await;
    assert_eq!((heard.len(), fault.to_string().as_str()), (1, "EHLO: 502 5.5.1 what"));
}

#[tokio::test]
async fn messages_go_over_tls_and_the_connection_is_reused() {
    let server = Server::new("localhost").await;
    let relay = server.relay(Tls::Implicit);
    let catcher = Catcher::new(CatcherOptions::default());
    let tasks = TaskTracker::new();
    let (acceptor, theirs) = (server.acceptor.clone(), catcher.clone());
    let listener = server.listener;
    tasks.spawn(async move {
        let stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
        theirs.session(stream).await;
    });
    let long = [MESSAGE, "line\r\n".repeat(50_000).as_bytes()].concat();
    for message in [MESSAGE, &long, MESSAGE] {
        let mut connection = relay.connection().await.expect("a connection");
        let ended =
            deliver(&mut connection, (FROM, "jane@x.example"), message, None, &|| true).await;
        assert!(matches!(ended, Transaction::Accepted(_)), "{ended:?}");
        assert!(catcher.messages().pop().expect("one").bytes == message);
    }
    relay.close().await;
    tasks.close();
    tasks.wait().await;
    assert_eq!(catcher.counts().quits.load(Ordering::Relaxed), 1);
}

#[test]
fn settings_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let not_pem = file(&folder, "not.pem", "hello");
    let empty = file(&folder, "empty", "\nsecret");
    let check = |change: &dyn Fn(&mut config::RelaySettings), setting: &str| {
        let mut settings = Config::from_toml("").unwrap().relay;
        settings.host = "relay.example".into();
        settings.tls = Tls::Implicit;
        change(&mut settings);
        let error = Relay::new(&settings).err().expect(setting);
        assert_eq!(error.setting, setting);
        assert!(!error.to_string().contains('\n'));
    };
    check(&|relay| relay.ca_file = "/nowhere/ca.pem".into(), "relay.ca_file");
    check(&|relay| relay.ca_file.clone_from(&not_pem), "relay.ca_file");
    check(&|relay| relay.host = "not a name".into(), "relay.host");
    check(&|relay| relay.hello_name = "two words".into(), "relay.hello_name");
    for path in ["/nowhere/password".into(), empty.clone()] {
        let password = move |relay: &mut config::RelaySettings| {
            relay.tls = Tls::None;
            relay.username = "user".into();
            relay.password_file.clone_from(&path);
        };
        check(&password, "relay.password_file");
    }
}
