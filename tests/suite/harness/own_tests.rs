//! Tests of the harness itself: other tests rely on these properties.

use std::{io::ErrorKind, process::Command, time::Duration};

use crate::harness::{
    LIMIT, eventually,
    ports::{ClosedPort, try_ports},
    postfix::Postfix,
    python,
    redis::{RedisServer, connect},
    run_to_end, smtp_dialogue,
};

#[test]
fn redis_keeps_what_it_acknowledged_when_it_is_killed() {
    let mut redis = RedisServer::start();
    assert_eq!(redis.ask("SET kept yes").unwrap(), "+OK\r\n");
    redis.kill();
    assert!(redis.ask("PING").is_err());
    redis.restart();
    assert_eq!(redis.ask("GET kept").unwrap(), "$3\r\nyes\r\n");
    redis.stop();
    let files = std::fs::read_dir(redis.append_only_file().parent().unwrap()).unwrap();
    assert!(files.count() >= 2);
}

#[test]
fn redis_that_is_frozen_does_not_answer_until_it_is_thawed() {
    let redis = RedisServer::start();
    redis.freeze();
    assert!(redis.ask_within(Duration::from_secs(1), "PING").is_err());
    redis.thaw();
    assert_eq!(redis.ask("PING").unwrap(), "+PONG\r\n");
}

#[test]
fn redis_takes_the_options_of_a_test() {
    let redis = RedisServer::start_with(&["--appendfsync", "everysec"]);
    let answer = redis.ask("CONFIG GET appendfsync").unwrap();
    assert!(answer.contains("everysec"), "{answer}");
}

#[tokio::test]
async fn python_and_rust_clients_share_a_redis() {
    let redis = RedisServer::start();
    let script = "tests/python/ping.py";
    assert_eq!(python::python(script, &[redis.socket()], LIMIT), "True\n");
    let mut connection = connect(&redis.url()).await;
    let seen = eventually("Python's key", LIMIT, async || {
        let asked: ::redis::RedisResult<Option<String>> =
            ::redis::cmd("GET").arg("from").query_async(&mut connection).await;
        asked.unwrap()
    });
    assert_eq!(seen.await, "python");
}

#[test]
fn postfix_accepts_refuses_defers_and_delivers() {
    let postfix = Postfix::start();
    let lines = [
        "EHLO test",
        "MAIL FROM:<sender@example.test>",
        "RCPT TO:<rejectme@inbox.test>",
        "RCPT TO:<tempfail@inbox.test>",
        "RCPT TO:<alice@inbox.test>",
        "DATA",
        "Subject: seen\r\n\r\nhello\r\n.",
        "QUIT",
    ];
    let replies = smtp_dialogue(("127.0.0.1", postfix.port()), &lines).unwrap();
    let codes: Vec<_> = replies.iter().map(|reply| &reply[..3]).collect();
    let expected = ["220", "250", "250", "550", "450", "250", "354", "250", "221"];
    assert_eq!(codes, expected, "{}", postfix.log());
    let mail = postfix.mailbox("alice", 1, LIMIT).remove(0);
    let mail = String::from_utf8(mail).unwrap();
    assert!(mail.contains("Subject: seen\n") && mail.ends_with("\n\nhello\n"), "{mail}");
}

#[test]
fn postfix_bounces_undeliverable_mail() {
    let postfix = Postfix::start();
    let lines = [
        "EHLO test",
        "MAIL FROM:<b-1@bounces.test>",
        "RCPT TO:<nobody@refuses.test>",
        "DATA",
        "Subject: lost\r\n\r\nhello\r\n.",
        "QUIT",
    ];
    smtp_dialogue(("127.0.0.1", postfix.port()), &lines).unwrap();
    let report = postfix.mailbox("bounces", 1, LIMIT).remove(0);
    let report = String::from_utf8(report).unwrap();
    assert!(report.contains("Status: 5.1.1"), "{report}");
}

#[test]
fn postfix_speaks_tls_with_the_root_it_names() {
    let postfix = Postfix::start();
    let script = "tests/python/tls.py";
    let arguments = [
        postfix.port().to_string(),
        postfix.tls_port().to_string(),
        postfix.ca_file().display().to_string(),
    ];
    assert_eq!(python::python(script, &arguments, LIMIT), "250 250\n");
}

#[test]
fn a_program_that_is_missing_fails_the_test_and_says_what_installs_it() {
    let failed = std::panic::catch_unwind(|| {
        run_to_end(&mut Command::new("no-such-program"), LIMIT);
    });
    let text = failed.unwrap_err().downcast::<String>().unwrap();
    assert!(text.contains("`make test` installs it"), "{text}");
}

#[tokio::test]
#[should_panic(expected = "the answer: not within")]
async fn a_wait_ends_even_if_its_probe_hangs() {
    let limit = Duration::from_millis(50);
    eventually("the answer", limit, async || std::future::pending::<Option<()>>().await).await;
}

#[test]
fn a_port_in_use_is_not_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_port = taken.local_addr().unwrap().port();
    let mut tries = 0;
    let redis = try_ports(|[port, bus]| {
        tries += 1;
        RedisServer::start_on([if tries == 1 { taken_port } else { port }, bus], &[])
    });
    assert!(tries >= 2 && redis.ask("PING").unwrap() == "+PONG\r\n", "{tries}");
    assert!(
        Postfix::start_on(try_ports(|[first, last]| Some([first, taken_port, last]))).is_none()
    );
}

#[tokio::test]
async fn a_closed_port_refuses_connections_and_nobody_else_gets_it() {
    let closed = ClosedPort::new();
    let address = ("127.0.0.1", closed.port());
    assert_eq!(
        std::net::TcpStream::connect(address).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    let listener = tokio::net::TcpListener::bind(address).await.expect("the owner may listen");
    assert!(std::net::TcpStream::connect(address).is_ok());
    drop(listener);
    assert_eq!(
        std::net::TcpStream::connect(address).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
}
