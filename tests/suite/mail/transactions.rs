//! Every possible end of a transaction, on both sides of the dividing line.
//!
//! Several tests run with PIPELINING and without.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use versand::{
    domain::outcome::{FailureReason, FailureType, classify},
    mail::{
        catcher::{CatcherAction, CatcherFault, CatcherStage},
        smtp::Transaction,
    },
};

use crate::harness::smtp::{FROM, MESSAGE, World, deliver, reply, until};

const LONG: Duration = Duration::from_secs(30);

/// A fault, its expected outcome, and whether the catcher accepted the message.
struct Case {
    act: CatcherFault,
    expected: Expected,
    /// True if the catcher accepted the message.
    caught: bool,
}

enum Expected {
    Deferred(Option<&'static str>),
    Fault(&'static str),
    Refused(&'static str),
    InDoubt(&'static str),
    Accepted(&'static str),
}

fn case(stage: CatcherStage, action: CatcherAction, expected: Expected) -> Case {
    Case { act: CatcherFault::new(stage, action), expected, caught: false }
}

fn accepted(stage: CatcherStage, action: CatcherAction, expected: Expected) -> Case {
    Case { act: CatcherFault::new(stage, action).accepted(), expected, caught: true }
}

fn cases() -> Vec<Case> {
    use CatcherAction::{Close, Garbage, Slow, Stall};
    use CatcherStage::{Body, Data, End, Mail, Recipient};
    use Expected::{Accepted, Deferred, Fault, InDoubt, Refused};
    let says = |text: &str| CatcherAction::Reply(text.to_owned());
    vec![
        case(Mail, says("451 4.3.0 later"), Deferred(Some("451 4.3.0 sender refused: later"))),
        case(
            Mail,
            says("550 5.1.1 user unknown"),
            Refused("550 5.1.1 sender refused: user unknown"),
        ),
        case(Mail, says("421 4.7.0 bye"), Deferred(Some("421 4.7.0 bye"))),
        case(Mail, says("530 5.7.0 Authentication required"), Fault("MAIL")),
        case(Mail, Close, Fault("envelope")),
        case(Mail, Garbage, Fault("envelope")),
        case(Mail, Stall(LONG), Fault("envelope")),
        case(Recipient, says("550 5.1.1 unknown"), Refused("550 5.1.1 unknown")),
        case(
            Recipient,
            says("550 5.5.3 Too many recipients"),
            Deferred(Some("550 5.5.3 Too many recipients")),
        ),
        case(Recipient, says("450 4.2.0 greylisted"), Deferred(Some("450 4.2.0 greylisted"))),
        case(Recipient, says("421 4.7.0 bye"), Deferred(Some("421 4.7.0 bye"))),
        case(Recipient, Close, Fault("envelope")),
        case(Recipient, Garbage, Fault("envelope")),
        case(Data, says("554 5.7.1 no"), Refused("554 5.7.1 no")),
        case(Data, says("451 4.3.0 later"), Deferred(Some("451 4.3.0 later"))),
        case(Data, says("250 what"), Fault("DATA")),
        case(Data, Close, Fault("envelope")),
        case(Data, Stall(LONG), Fault("envelope")),
        case(End, says("554 5.6.0 spam"), Refused("554 5.6.0 spam")),
        case(End, says("452 4.2.2 full"), Deferred(Some("452 4.2.2 full"))),
        case(End, says("421 4.3.2 shutting down"), Deferred(Some("421 4.3.2 shutting down"))),
        case(End, says("354 go on"), InDoubt("end of data")),
        case(End, Close, InDoubt("end of data")),
        case(End, Garbage, InDoubt("end of data")),
        case(End, Stall(LONG), InDoubt("end of data")),
        accepted(End, Close, InDoubt("end of data")),
        accepted(End, Garbage, InDoubt("end of data")),
        accepted(End, Stall(LONG), InDoubt("end of data")),
        // The end of data was in the same write: nobody can know that the server never read it.
        case(Body, Close, InDoubt("end of data")),
        case(Body, Stall(LONG), InDoubt("end of data")),
        case(Body, says("451 4.3.0 disk"), Deferred(Some("451 4.3.0 disk"))),
        accepted(End, Slow(Duration::from_millis(100)), Accepted("250 2.0.0 Ok: caught")),
        accepted(End, Stall(Duration::from_millis(100)), Accepted("250 2.0.0 Ok: caught")),
    ]
}

#[tokio::test]
async fn every_fault_falls_on_its_side_of_the_dividing_line() {
    for pipelining in [true, false] {
        for (after, before) in [(false, false), (true, false), (false, true), (true, true)] {
            // Each case has servers of its own. All cases run at once, because some of them wait
            // for time-outs.
            let all = cases().into_iter().map(|case| check(case, pipelining, after, before));
            futures_util::future::join_all(all).await;
        }
    }
}

/// With `after`, an earlier transaction pipelined this envelope. With `before`, this transaction
/// pipelines the envelope of a later one.
async fn check(case: Case, pipelining: bool, after: bool, before: bool) {
    let world = World::new(|rules| rules.pipelining = pipelining, |_| ()).await;
    let stage = case.act.stage;
    let name = format!("{:?}, pipelining {pipelining}, after {after}, before {before}", case.act);
    // After a refused MAIL the pipelined RCPT and DATA are out of order.
    let odd =
        if pipelining && stage == CatcherStage::Mail && case.act.action != CatcherAction::Garbage {
            2
        } else {
            0
        };
    let mut connection = world.relay.connection().await.expect("a connection");
    if after {
        let usual = CatcherFault::new(CatcherStage::Data, CatcherAction::Stall(Duration::ZERO));
        world.catcher.change_rules(|rules| rules.next.extend([usual, case.act]));
        let ended = deliver(
            &mut connection,
            (FROM, "first@example.org"),
            MESSAGE,
            Some("jane@example.org"),
            &|| true,
        )
        .await;
        assert!(matches!(ended, Transaction::Accepted(_)), "{name}: {ended:?}");
    } else {
        world.catcher.change_rules(|rules| rules.next.push_back(case.act));
    }
    let next = before.then_some("next@example.org");
    let ended = deliver(&mut connection, (FROM, "jane@example.org"), MESSAGE, next, &|| true).await;
    let usable = connection.is_usable();
    let text = |text: &str| reply(text);
    let fault_names = |fault: &Option<String>, step: &str| {
        fault.as_ref().is_some_and(|fault| fault.starts_with(&format!("{step}: ")))
    };
    let keeps = match (&case.expected, &ended) {
        (
            Expected::Deferred(Some(expected)),
            Transaction::Deferred { reply: Some(reply), fault: None },
        ) => {
            assert_eq!(*reply, text(expected), "{name}");
            reply.code != 421
        }
        (Expected::Fault(step), Transaction::Deferred { fault, .. }) => {
            assert!(fault_names(fault, step), "{name}: {ended:?}");
            false
        }
        (Expected::Refused(expected), Transaction::Refused(reply)) => {
            assert_eq!(*reply, text(expected), "{name}");
            true
        }
        (Expected::Accepted(expected), Transaction::Accepted(reply)) => {
            assert_eq!(*reply, text(expected), "{name}");
            true
        }
        (Expected::InDoubt(step), Transaction::InDoubt(what)) => {
            assert!(what.starts_with(step), "{name}: {what}");
            false
        }
        _ => panic!("{name}: {ended:?}"),
    };
    assert_eq!(usable, keeps, "{name}: is the connection usable?");
    let caught = world.catcher.messages().len() - usize::from(after);
    assert_eq!(caught, usize::from(case.caught), "{name}: did the catcher accept the message?");
    let (by_relay, by_catcher) = world.accepted();
    let accepted = matches!(ended, Transaction::Accepted(_));
    assert_eq!(by_relay, u64::from(accepted) + u64::from(after), "{name}");
    assert!(!accepted || by_catcher as u64 == by_relay, "{name}");
    // On a connection that stays open, the next transaction succeeds. On any other connection, it
    // does not start. After a reply in the body, any outcome is allowed.
    if before && keeps && stage != CatcherStage::Body {
        assert!(
            matches!(
                deliver(&mut connection, (FROM, "next@example.org"), MESSAGE, None, &|| true).await,
                Transaction::Accepted(_)
            ),
            "{name}"
        );
    } else if before {
        let ended =
            deliver(&mut connection, (FROM, "next@example.org"), MESSAGE, None, &|| true).await;
        assert!(keeps || ended == Transaction::NotStarted, "{name}: {ended:?}");
    }
    drop(connection);
    if keeps && stage != CatcherStage::Body {
        assert!(matches!(world.send("last@example.org").await, Transaction::Accepted(_)), "{name}");
        let received = world
            .catcher
            .messages()
            .into_iter()
            .flat_map(|caught| caught.to.clone())
            .filter(|to| to == "next@example.org");
        assert_eq!(received.count(), usize::from(before), "{name}");
        assert_eq!(world.relay.stats().connections_opened.load(Ordering::Relaxed), 1, "{name}");
    }
    assert!(
        world.catcher.counts().unexpected.load(Ordering::Relaxed) <= odd,
        "{name}: commands out of order"
    );
}

#[tokio::test]
async fn the_message_arrives_byte_for_byte() {
    for pipelining in [true, false] {
        let world = World::new(|rules| rules.pipelining = pipelining, |_| ()).await;
        let mut connection = world.relay.connection().await.expect("a connection");
        let long = format!("{}\r\n..\r\n.\r\n.x\r\n", "line of text\r\n.".repeat(20_000));
        for message in [MESSAGE, b".\r\n", b"\r\n", b"a\r\n.\r\n", long.as_bytes()] {
            let ended =
                deliver(&mut connection, (FROM, "Jane@Müller.example"), message, None, &|| true)
                    .await;
            assert!(matches!(ended, Transaction::Accepted(_)), "{ended:?}");
            let caught = world.catcher.messages().pop().expect("one more message");
            assert!(caught.bytes == message, "{} bytes, pipelining {pipelining}", message.len());
            assert_eq!(
                (caught.from.as_str(), caught.to.as_slice()),
                (FROM, &["Jane@xn--mller-kva.example".to_owned()][..])
            );
        }
        let ended =
            deliver(&mut connection, ("", "jane@example.org"), MESSAGE, None, &|| true).await;
        assert!(matches!(ended, Transaction::Accepted(_)), "the null sender: {ended:?}");
        assert_eq!(world.catcher.counts().connections.load(Ordering::Relaxed), 1);
        assert_eq!(world.catcher.counts().unexpected.load(Ordering::Relaxed), 0);
    }
}

#[tokio::test]
async fn rules_by_local_part_need_no_setting() {
    for pipelining in [true, false] {
        let world = World::new(|rules| rules.pipelining = pipelining, |_| ()).await;
        assert_eq!(
            world.send("refuse1@x.example").await,
            Transaction::Refused(reply("550 5.1.1 User unknown"))
        );
        assert_eq!(
            world.send("Full.2@x.example").await,
            Transaction::Refused(reply("552 5.2.2 Mailbox full"))
        );
        let deferred = world.send("defer@x.example").await;
        assert!(matches!(deferred, Transaction::Deferred { fault: None, .. }), "{deferred:?}");
        assert!(matches!(world.send("defer@x.example").await, Transaction::Accepted(_)));
        assert!(matches!(world.send("jane@x.example").await, Transaction::Accepted(_)));
        let counts = world.catcher.counts();
        assert_eq!(
            counts.connections.load(Ordering::Relaxed),
            1,
            "the connection survives refusals"
        );
        assert_eq!(counts.resets.load(Ordering::Relaxed), 3, "one RSET for each refused envelope");
        let journal: Vec<_> =
            world.catcher.journal().iter().map(|e| (e.recipient.clone(), e.accepted)).collect();
        let expected = [
            ("refuse1", false),
            ("Full.2", false),
            ("defer", false),
            ("defer", true),
            ("jane", true),
        ];
        assert_eq!(
            journal,
            expected.map(|(local, accepted)| (format!("{local}@x.example"), accepted))
        );
        assert_eq!(world.catcher.journal()[4].message_id, "m1@shop.example");
    }
}

#[tokio::test]
async fn a_transaction_without_recipients_ends_empty_and_keeps_its_connection() {
    let world = World::new(|rules| rules.data_without_recipient = true, |_| ()).await;
    for _ in 0..3 {
        assert!(matches!(world.send("refuse@x.example").await, Transaction::Refused(_)));
        assert!(matches!(world.send("jane@x.example").await, Transaction::Accepted(_)));
    }
    assert_eq!(world.catcher.counts().connections.load(Ordering::Relaxed), 1);
    assert_eq!(world.catcher.messages().len(), 3, "no empty message was accepted");
}

#[tokio::test]
async fn a_transaction_that_may_not_start_sends_nothing() {
    for pipelining in [true, false] {
        for allowed in 0..2 {
            let world = World::new(|rules| rules.pipelining = pipelining, |_| ()).await;
            let asked = AtomicUsize::new(0);
            let may_go = || asked.fetch_add(1, Ordering::Relaxed) < allowed;
            let mut connection = world.relay.connection().await.expect("a connection");
            let ended =
                deliver(&mut connection, (FROM, "jane@x.example"), MESSAGE, None, &may_go).await;
            assert_eq!(ended, Transaction::NotStarted, "allowed {allowed} times");
            assert_eq!(asked.load(Ordering::Relaxed), allowed + 1);
            // If `may_go` says no before the envelope, the connection stays open. If it says no
            // before the end of data, the connection is closed.
            assert_eq!(connection.is_usable(), allowed == 0);
            until("closed", || world.catcher.open_connections() == usize::from(allowed == 0)).await;
            assert_eq!(world.catcher.messages().len(), 0);
        }
    }
}

#[tokio::test]
async fn most_of_a_long_message_is_before_the_dividing_line() {
    let world = World::new(|_| (), |_| ()).await;
    world.catcher.change_rules(|rules| {
        rules.next.push_back(CatcherFault::new(CatcherStage::Body, CatcherAction::Stall(LONG)))
    });
    let mut connection = world.relay.connection().await.expect("a connection");
    // This is more than the socket buffers hold.
    let long = "line of text\r\n".repeat(2_000_000);
    let ended =
        deliver(&mut connection, (FROM, "jane@x.example"), long.as_bytes(), None, &|| true).await;
    match ended {
        Transaction::Deferred { reply: None, fault: Some(fault) } => {
            assert!(fault.starts_with("message: "), "{fault}")
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn time_outs_follow_the_settings() {
    let world = World::new(|_| (), |relay| relay.final_timeout_ms = 700).await;
    world.catcher.change_rules(|rules| {
        rules.every = Some(CatcherFault::new(CatcherStage::End, CatcherAction::Stall(LONG)))
    });
    let started = Instant::now();
    assert!(matches!(world.send("jane@x.example").await, Transaction::InDoubt(_)));
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(690) && took < LONG, "{took:?}");
}

#[tokio::test]
async fn an_address_that_no_command_can_carry_never_reaches_the_wire() {
    let world = World::new(|_| (), |_| ()).await;
    for to in ["", "jane", "jane@x.example>\r\nRCPT TO:<evil@x.example", "jürgen@x.example"] {
        let Transaction::Refused(reply) = world.send(to).await else {
            panic!("{to} was not refused")
        };
        assert_eq!(reply.code, 553);
    }
    assert_eq!(world.catcher.journal(), []);
    assert!(matches!(world.send("jane@x.example").await, Transaction::Accepted(_)));
    assert_eq!(world.catcher.counts().connections.load(Ordering::Relaxed), 1);
}

#[test]
fn a_refused_sender_does_not_mean_an_unknown_user() {
    let refused = reply("550 5.1.1 sender refused: user unknown");
    assert_eq!(classify(&refused), (FailureReason::Refused, FailureType::Hard));
}
