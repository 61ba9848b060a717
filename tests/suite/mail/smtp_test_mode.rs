//! Transactions of an SMTP test: they end after RCPT and are never in doubt.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
};
use tokio_util::task::TaskTracker;
use versand::mail::{
    catcher::{CatcherAction, CatcherFault, CatcherStage},
    smtp::{Envelope, SmtpConnection, Transaction},
};

use crate::harness::smtp::{FROM, MESSAGE, World, deliver, relay, reply};

async fn test(connection: &mut SmtpConnection, to: &str) -> Transaction {
    connection.test(&Envelope::new(FROM, to, MESSAGE.len()).unwrap(), &|| true).await
}

#[tokio::test]
async fn every_fault_of_a_test_is_before_the_dividing_line() {
    let says = |text: &str| CatcherAction::Reply(text.to_owned());
    let refused = |text: &str| Some(Transaction::Refused(reply(text)));
    let deferred =
        |text: &str| Some(Transaction::Deferred { reply: Some(reply(text)), fault: None });
    let cases = [
        (
            CatcherStage::Mail,
            says("550 5.1.1 user unknown"),
            refused("550 5.1.1 sender refused: user unknown"),
            true,
        ),
        (
            CatcherStage::Mail,
            says("451 4.3.0 later"),
            deferred("451 4.3.0 sender refused: later"),
            true,
        ),
        (CatcherStage::Mail, says("421 4.7.0 bye"), deferred("421 4.7.0 bye"), false),
        (CatcherStage::Mail, CatcherAction::Close, None, false),
        (CatcherStage::Recipient, says("550 5.1.1 unknown"), refused("550 5.1.1 unknown"), true),
        (
            CatcherStage::Recipient,
            says("450 4.2.0 greylisted"),
            deferred("450 4.2.0 greylisted"),
            true,
        ),
        (CatcherStage::Recipient, says("421 4.7.0 bye"), deferred("421 4.7.0 bye"), false),
        (CatcherStage::Recipient, says("530 5.7.0 Authentication required"), None, false),
        (CatcherStage::Recipient, CatcherAction::Close, None, false),
        (CatcherStage::Recipient, CatcherAction::Garbage, None, false),
        (CatcherStage::Recipient, CatcherAction::Stall(Duration::from_secs(30)), None, false),
    ];
    for (stage, action, expected, usable) in cases {
        for pipelining in [true, false] {
            let name = format!("{stage:?} {action:?}, pipelining {pipelining}");
            let world = World::new(|rules| rules.pipelining = pipelining, |_| ()).await;
            let mut connection = world.relay.connection().await.expect("a connection");
            assert_eq!(
                test(&mut connection, "a@x.example").await,
                Transaction::Tested(reply("250 2.1.5 Ok")),
                "{name}"
            );
            world.catcher.change_rules(|rules| {
                rules.next.push_back(CatcherFault::new(stage, action.clone()))
            });
            let ended = test(&mut connection, "jane@x.example").await;
            match &expected {
                Some(expected) => assert_eq!(ended, *expected, "{name}"),
                None => assert!(
                    matches!(ended, Transaction::Deferred { fault: Some(_), .. }),
                    "{name}: {ended:?}"
                ),
            }
            assert_eq!(connection.is_usable(), usable, "{name}");
            if usable {
                // A test and a message follow on this connection. They do not depend on the
                // transaction before them.
                assert!(
                    matches!(test(&mut connection, "b@x.example").await, Transaction::Tested(_)),
                    "{name}"
                );
                let ended =
                    deliver(&mut connection, (FROM, "c@x.example"), MESSAGE, None, &|| true).await;
                assert!(matches!(ended, Transaction::Accepted(_)), "{name}: {ended:?}");
                assert_eq!(world.catcher.counts().resets.load(Ordering::Relaxed), 3, "{name}");
            }
            assert_eq!(world.accepted(), (u64::from(usable), usize::from(usable)), "{name}");
            // After a refused MAIL the pipelined RCPT is out of order.
            let odd = u64::from(pipelining && stage == CatcherStage::Mail && usable);
            assert_eq!(world.catcher.counts().unexpected.load(Ordering::Relaxed), odd, "{name}");
        }
    }
}

#[tokio::test]
async fn a_test_that_may_not_start_or_follows_a_pipelined_envelope_is_not_started() {
    let world = World::new(|_| (), |_| ()).await;
    let mut connection = world.relay.connection().await.expect("a connection");
    let envelope = Envelope::new(FROM, "jane@x.example", 10).unwrap();
    assert_eq!(connection.test(&envelope, &|| false).await, Transaction::NotStarted);
    assert!(connection.is_usable());
    let ended =
        deliver(&mut connection, (FROM, "a@x.example"), MESSAGE, Some("jane@x.example"), &|| true)
            .await;
    assert!(matches!(ended, Transaction::Accepted(_)), "{ended:?}");
    assert_eq!(connection.test(&envelope, &|| true).await, Transaction::NotStarted);
    assert!(!connection.is_usable(), "the server waits for a message");
    assert_eq!(world.catcher.messages().len(), 1);
}

/// A server that answers RSET with `last`, or closes the connection.
async fn server(last: Option<&'static str>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    TaskTracker::new().spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        stream.write_all(b"220 mx.example\r\n").await.unwrap();
        let mut line = String::new();
        while stream.read_line(&mut line).await.unwrap() > 0 {
            match (line.starts_with("RSET"), last) {
                (true, None) => return,
                (true, Some(last)) => stream.write_all(last.as_bytes()).await.unwrap(),
                (false, _) => stream.write_all(b"250 2.1.5 Ok\r\n").await.unwrap(),
            }
            line.clear();
        }
    });
    port
}

#[tokio::test]
async fn the_reply_to_rcpt_counts_and_a_connection_that_is_not_reset_is_closed() {
    for (last, usable) in [
        (Some("250 2.0.0 Ok\r\n"), true),
        (Some("502 5.5.1 no\r\n"), false),
        (Some("421 4.3.2 bye\r\n"), false),
        (Some("!!!\r\n"), false),
        (None, false),
    ] {
        let port = server(last).await;
        let relay = relay(|relay| relay.port = port);
        let mut connection = relay.connection().await.expect("a connection");
        assert_eq!(
            test(&mut connection, "jane@x.example").await,
            Transaction::Tested(reply("250 2.1.5 Ok")),
            "{last:?}"
        );
        assert_eq!(connection.is_usable(), usable, "{last:?}");
    }
}
