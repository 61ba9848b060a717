//! The relay layer against a real Postfix.

use versand::{
    config::Tls,
    domain::outcome::{FailureReason, FailureType, classify},
    mail::smtp::{Relay, Transaction},
};

use crate::harness::{
    LIMIT,
    postfix::Postfix,
    smtp::{FROM, deliver, relay},
};

fn to(postfix: &Postfix, tls: Tls) -> Relay {
    relay(|relay| {
        relay.host = "localhost".into();
        relay.tls = tls;
        relay.port = if tls == Tls::Implicit { postfix.tls_port() } else { postfix.port() };
        relay.ca_file = postfix.ca_file();
        // Postfix has other work, and may be slow to start its first process.
        relay.connect_timeout_ms = 10_000;
        relay.command_timeout_ms = 10_000;
        relay.final_timeout_ms = 10_000;
        relay.data_timeout_ms = 10_000;
    })
}

#[tokio::test]
async fn postfix_accepts_refuses_and_defers_over_every_kind_of_connection() {
    let postfix = Postfix::start();
    for (count, tls) in [Tls::None, Tls::Starttls, Tls::Implicit].into_iter().enumerate() {
        let relay = to(&postfix, tls);
        let mut connection = relay.connection().await.expect("a connection");
        let message =
            format!("From: {FROM}\r\nSubject: over {tls:?}\r\n\r\n.leading dot\r\n..two\r\n");
        let mut send = async |to| {
            deliver(&mut connection, (FROM, to), message.as_bytes(), None, &|| true).await
        };
        let refused = send("rejectme@inbox.test").await;
        let Transaction::Refused(reply) = &refused else { panic!("{refused:?}") };
        assert_eq!((reply.code, reply.enhanced), (550, Some((5, 7, 1))));
        assert_eq!(classify(reply), (FailureReason::Refused, FailureType::Hard));
        let deferred = send("tempfail@inbox.test").await;
        let Transaction::Deferred { reply: Some(reply), fault: None } = &deferred else {
            panic!("{deferred:?}")
        };
        assert_eq!((reply.code, reply.enhanced), (450, Some((4, 2, 0))));
        let accepted = send("alice@inbox.test").await;
        let Transaction::Accepted(reply) = &accepted else { panic!("{accepted:?}") };
        assert!(reply.text.starts_with("Ok: queued as "), "{reply}");
        let arrived = postfix.mailbox("alice", count + 1, LIMIT);
        assert!(arrived.iter().any(|mail| {
            let mail = String::from_utf8_lossy(mail);
            mail.contains(&format!("Subject: over {tls:?}"))
                && mail.contains("\n\n.leading dot\n..two\n")
        }));
        assert_eq!(relay.stats().connections_opened.load(std::sync::atomic::Ordering::Relaxed), 1);
        drop(connection);
        relay.close().await;
    }
    let log = postfix.log();
    assert!(
        !log.contains("improper command pipelining") && !log.contains("lost connection after"),
        "{log}"
    );
}
