//! Foreign servers: a real Postfix, and an SMTP server in Python that asks for a password.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{
    LIMIT,
    client::{audience, definition},
    daemon::Daemon,
    eventually,
    postfix::Postfix,
    python::{interpreter, python},
    repository,
};

/// A relay at `port` of `localhost`, whose certificate is in `ca_file`.
fn relay(port: u16, tls: &str, ca_file: &std::path::Path, more: &str) -> String {
    format!(
        "[relay]\nhost = \"localhost\"\nport = {port}\ntls = \"{tls}\"\nca_file = {ca_file:?}\nconnections = 3\n{more}\n\
         [send]\nkeep_replies = \"all\"\n"
    )
}

/// A mail as Python parses it.
fn read(mail: &[u8]) -> Value {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), mail).unwrap();
    serde_json::from_str(&python("tests/python/read_mail.py", &[file.path()], LIMIT)).unwrap()
}

fn mail_definition() -> Value {
    let mut definition = definition();
    definition["content"] = json!({
        "subject": "Grüße an {{ name }} – und ein Betreff, der so lang ist, dass er gefaltet werden muß, mit 🎉 am Ende",
        "html": "<p>Dear {{ name }},</p>\n<p>.a line that begins with a dot, and one that is long: \
            {{ long }}</p><p><a href=\"https://shop.example/unsubscribe\">unsubscribe</a></p>",
        "text": "Dear {{ name }},\n\n.a dot\n..two dots\n{{ long }}\nunsubscribe: https://shop.example/unsubscribe\n",
    });
    definition["sender"]["name"] = json!("Der Laden \"Müller, Söhne\"");
    // The validity period ends after about four seconds.
    definition["settings"] = json!({ "retry_minutes": [0.02], "validity_hours": 0.0012 });
    definition
}

async fn through_postfix(tls: &str) {
    let postfix = Postfix::start();
    let port = if tls == "implicit" { postfix.tls_port() } else { postfix.port() };
    let daemon = Daemon::start(&relay(port, tls, &postfix.ca_file(), "")).await;
    let addresses = [
        "alice@inbox.test",
        "alice+1@inbox.test",
        "rejectme@inbox.test",
        "tempfail@inbox.test",
        "bob@inbox.test",
    ];
    let long = "Grüße ".repeat(300);
    let lines: String = addresses
        .iter()
        .map(|email| {
            json!({ "email": email, "name": "Jörg <&> \"J\"", "long": long }).to_string() + "\n"
        })
        .collect();
    let id = daemon.client.send(&mail_definition(), lines).await;
    daemon.client.wait_for(&id, &["finished"]).await;
    let log = daemon.client.log(&id).await;
    let of = |email: &str| log.iter().find(|line| line["email"] == email).unwrap();
    for email in ["alice@inbox.test", "alice+1@inbox.test", "bob@inbox.test"] {
        assert_eq!(
            (&of(email)["status"], &of(email)["attempts"]),
            (&json!("sent"), &json!(1)),
            "{}",
            of(email)
        );
        assert!(of(email)["reply"].as_str().unwrap().contains("queued as"), "{}", of(email));
    }
    let refused = of("rejectme@inbox.test");
    assert_eq!(
        (&refused["status"], &refused["failure_reason"]),
        (&json!("failed"), &json!("refused")),
        "{refused}"
    );
    assert!(refused["reply"].as_str().unwrap().starts_with("550 5.7.1"), "{refused}");
    let deferred = of("tempfail@inbox.test");
    assert_eq!(
        (&deferred["status"], &deferred["expired"]),
        (&json!("failed"), &json!(true)),
        "{deferred}"
    );
    assert!(
        deferred["attempts"].as_u64().unwrap() > 1
            && deferred["reply"].as_str().unwrap().contains("450 4.2.0"),
        "{deferred}"
    );

    for (name, emails) in [("alice", &addresses[..2]), ("bob", &addresses[4..])] {
        let mails = postfix.mailbox(name, emails.len(), LIMIT);
        assert_eq!(mails.len(), emails.len(), "each recipient once");
        for email in emails {
            let number = &of(email)["recipient"];
            let preview =
                daemon.client.bytes(&format!("/deliveries/{id}/recipients/{number}/preview")).await;
            arrived_as_shown(&mails, email, &preview);
        }
    }
    assert_eq!(daemon.metric("versand_conservation_difference").await, 0.0);
    assert!(!daemon.log().contains('@'));
}

/// Postfix puts its own lines before ours and stores LF. The rest equals the preview.
fn arrived_as_shown(mails: &[Vec<u8>], email: &str, preview: &[u8]) {
    let to = format!("X-Original-To: {email}\n").into_bytes();
    let mail = mails
        .iter()
        .find(|mail| mail.windows(to.len()).any(|window| window == to))
        .expect("the mail has arrived");
    let shown = String::from_utf8(preview.to_vec()).unwrap().replace("\r\n", "\n");
    let (mail, start) = (String::from_utf8(mail.clone()).unwrap(), shown.lines().next().unwrap());
    let at = mail.find(&format!("\n{start}\n")).expect("our own header begins somewhere") + 1;
    assert_eq!(&mail[at..], shown);
    for line in mail[..at].lines() {
        let added =
            ["Return-Path: <", "X-Original-To: ", "Delivered-To: ", "Received: from ", "\t"];
        assert!(added.iter().any(|start| line.starts_with(start)), "Postfix added {line}");
    }
    let seen = read(mail.as_bytes());
    assert_eq!(seen["defects"], json!([]));
    let subject = "Grüße an Jörg <&> \"J\" – und ein Betreff, der so lang ist, dass er gefaltet werden muß, mit 🎉 am Ende";
    assert_eq!((&seen["subject"], &seen["to"]), (&json!(subject), &json!([email])));
    assert_eq!(seen["from"], json!([["Der Laden \"Müller, Söhne\"", "news@shop.example"]]));
    assert_eq!(
        (&seen["type"], &seen["parts"]),
        (&json!("multipart/alternative"), &json!(["text/plain", "text/html"]))
    );
    let long = "Grüße ".repeat(300);
    let text = seen["text"].as_str().unwrap();
    assert!(text.starts_with("Dear Jörg <&> \"J\",\n\n.a dot\n..two dots\nGrüße Grüße"), "{text}");
    assert_eq!(text.matches("Grüße").count(), 300);
    assert!(text.contains(&long), "{text:?}");
    let html = seen["html"].as_str().unwrap();
    assert!(
        html.contains("<p>Dear Jörg &lt;&amp;&gt; &quot;J&quot;,</p>")
            && html.contains("<p>.a line"),
        "{html}"
    );
    assert!(seen["message_id"].as_str().unwrap().ends_with("@shop.example>"));
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_takes_a_delivery_over_starttls_and_python_reads_it() {
    through_postfix("starttls").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_takes_a_delivery_over_implicit_tls() {
    through_postfix("implicit").await;
}

/// The SMTP server of tests/python/auth_smtp.py.
struct AuthServer {
    folder: TempDir,
    child: Child,
    port: u16,
    printed: Arc<Mutex<Vec<String>>>,
}

impl AuthServer {
    fn start(password: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(folder.path().join("ca.pem"), made.cert.pem()).unwrap();
        let both = format!("{}{}", made.signing_key.serialize_pem(), made.cert.pem());
        fs::write(folder.path().join("tls.pem"), both).unwrap();
        fs::write(folder.path().join("password"), password).unwrap();
        let mut command = Command::new(interpreter());
        command.arg(repository("tests/python/auth_smtp.py")).arg(folder.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        let ready = lines.recv_timeout(LIMIT).unwrap();
        let port = ready
            .strip_prefix("ready ")
            .and_then(|port| port.parse().ok())
            .unwrap_or_else(|| panic!("{ready}"));
        let printed = Arc::<Mutex<Vec<String>>>::default();
        let heard = printed.clone();
        std::thread::spawn(move || lines.iter().for_each(|line| heard.lock().unwrap().push(line)));
        Self { folder, child, port, printed }
    }

    /// How often the server printed each line.
    fn printed(&self) -> BTreeMap<String, usize> {
        let mut printed = BTreeMap::new();
        for line in self.printed.lock().unwrap().iter() {
            *printed.entry(line.clone()).or_default() += 1;
        }
        printed
    }
}

fn lines_of(output: ChildStdout) -> Receiver<String> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        BufReader::new(output).lines().map_while(Result::ok).all(|line| send.send(line).is_ok())
    });
    receive
}

impl Drop for AuthServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_fails_no_recipient_and_the_right_one_resumes_the_delivery() {
    let server = AuthServer::start("correct horse");
    let password_file = server.folder.path().join("client-password");
    fs::write(&password_file, "wrong\n").unwrap();
    let more = format!("username = \"versand\"\npassword_file = {password_file:?}\n");
    let mut daemon =
        Daemon::start(&relay(server.port, "starttls", &server.folder.path().join("ca.pem"), &more))
            .await;
    let id = daemon.client.send(&definition(), audience(50)).await;
    eventually("some faults", LIMIT, async || {
        (daemon.metric("versand_relay_faults{relay=\"default\"}").await >= 3.0).then_some(())
    })
    .await;
    let view = daemon.client.get(&format!("/deliveries/{id}")).await;
    assert_eq!(view["state"], "in_progress");
    assert_eq!(
        (&view["counts"]["pending"], &view["counts"]["failed"]),
        (&json!(50), &json!(0)),
        "{}",
        view["counts"]
    );
    assert_eq!(server.printed().keys().collect::<Vec<_>>(), ["auth versand no"]);
    let log = daemon.log();
    assert!(log.contains("AUTH: 535") && !log.contains("wrong"), "{log}");
    // A relay at fault is tried with pauses, and not logged for each connection.
    assert_eq!(log.matches("an outage of the relay begins").count(), 1, "{log}");

    fs::write(&password_file, "correct horse\n").unwrap();
    let again = std::time::Instant::now();
    assert!(daemon.terminate().await.success());
    assert!(
        again.elapsed() < Duration::from_secs(20),
        "the end of the daemon waited for the relay: {:?}",
        again.elapsed()
    );
    daemon.restart().await;
    daemon.client.wait_for(&id, &["finished"]).await;
    let log = daemon.client.log(&id).await;
    assert!(
        log.len() == 50 && log.iter().all(|line| line["status"] == "sent" && line["attempts"] == 1),
        "{log:?}"
    );
    let printed = server.printed();
    assert_eq!(
        printed.iter().filter(|(line, times)| line.starts_with("mail ") && **times == 1).count(),
        50,
        "{printed:?}"
    );
    assert!(printed["auth versand yes"] >= 1);
}
