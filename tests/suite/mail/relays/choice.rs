//! The choice of a relay, connection by connection.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{io::AsyncWriteExt, net::TcpListener, time::timeout};
use versand::{
    config::Config,
    mail::smtp::{Envelope, RelayRoute, Relays, SmtpConnection, Transaction},
};

use crate::harness::{
    LIMIT, eventually,
    ports::ClosedPort,
    relay::{TestRelay, named},
};

const FROM: &str = "news@shop.example";

fn relays(settings: &[String]) -> (Relays, RelayRoute) {
    let relays = Relays::new(&Config::from_toml(&settings.concat()).unwrap()).unwrap();
    let route = relays.route(FROM).unwrap();
    (relays, route)
}

async fn connection(relays: &Relays, route: &RelayRoute) -> SmtpConnection {
    timeout(LIMIT, relays.connection(route)).await.expect("in time").expect("a connection")
}

async fn send(connection: &mut SmtpConnection, to: usize) {
    let message = b"Message-ID: <m@shop.example>\r\n\r\nHi\r\n";
    let envelope = Envelope::new(FROM, &format!("r{to}@x.example"), message.len()).unwrap();
    let sent = connection.send(&envelope, &mut message.to_vec(), None, &|| true).await;
    assert!(matches!(sent, Transaction::Accepted(_)), "{sent:?}");
}

#[tokio::test]
async fn connections_in_sequence_follow_the_weights_exactly() {
    let catchers = join_all((0..3).map(|_| TestRelay::start(Duration::ZERO))).await;
    let settings: Vec<String> = [5, 2, 1]
        .iter()
        .zip(&catchers)
        .map(|(w, c)| c.named(&format!("w{w}"), &format!("weight = {w}")))
        .collect();
    let (relays, route) = relays(&settings);
    for n in 0..160 {
        send(&mut connection(&relays, &route).await, n).await;
        if n == 7 {
            assert_eq!(
                catchers.iter().map(TestRelay::accepted).collect::<Vec<_>>(),
                [5, 2, 1],
                "the choice makes no bursts"
            );
        }
    }
    assert_eq!(catchers.iter().map(TestRelay::accepted).collect::<Vec<_>>(), [100, 40, 20]);
    relays.close().await;
}

#[tokio::test]
async fn busy_relays_keep_their_shares_and_waiting_senders_get_returned_connections() {
    let (a, b) = (TestRelay::start(Duration::ZERO).await, TestRelay::start(Duration::ZERO).await);
    let (relays, route) =
        relays(&[a.named("a", "weight = 2\nconnections = 6"), b.named("b", "connections = 6")]);
    let mut connections: Vec<SmtpConnection> = Vec::new();
    for _ in 0..9 {
        connections.push(connection(&relays, &route).await);
    }
    assert!(
        timeout(Duration::from_millis(300), relays.connection(&route)).await.is_err(),
        "no connection is left within the shares"
    );
    let open: Vec<usize> = relays.all().map(|relay| relay.open_connections()).collect();
    assert_eq!(open, [6, 3]);
    let relays = Arc::new(relays);
    let waiting: Vec<_> = (0..9)
        .map(|_| {
            let (relays, route) = (relays.clone(), route.clone());
            tokio::spawn(async move { connection(&relays, &route).await })
        })
        .collect();
    tokio::task::yield_now().await;
    drop(connections);
    let taken = join_all(waiting).await;
    assert!(taken.iter().all(Result::is_ok));
    let opened: BTreeMap<&str, usize> =
        relays.all().map(|relay| (relay.name(), relay.open_connections())).collect();
    assert_eq!(opened, BTreeMap::from([("a", 6), ("b", 3)]), "the connections were reused");
}

#[tokio::test]
async fn senders_see_a_fault_only_when_all_relays_are_at_fault() {
    let well = TestRelay::start(Duration::ZERO).await;
    let closed = [ClosedPort::new(), ClosedPort::new()];
    let [gone, gone_too] = ["gone", "gone-too"]
        .map(|name| named(name, closed[usize::from(name == "gone-too")].port(), "weight = 1000"));
    let (some, route) = relays(&[gone.clone(), gone_too.clone(), well.named("well", "")]);
    for n in 0..5 {
        send(&mut connection(&some, &route).await, n).await;
    }
    let (none, route) = relays(&[gone, gone_too]);
    for _ in 0..3 {
        let fault =
            timeout(LIMIT, none.connection(&route)).await.expect("in time").err().expect("a fault");
        assert_eq!(fault.step, "connect");
    }
    assert!(none.all().all(|relay| relay.faults_in_a_row() > 1));
}

/// The relay greets the first client with 421, and then greets nobody. A probe in the background
/// finds out whether it is back: no sender waits for that.
#[tokio::test]
async fn no_sender_waits_for_a_relay_that_was_at_fault_and_is_silent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = named("silent", listener.local_addr().unwrap().port(), "weight = 1000");
    let (mut open, tries) = (Vec::new(), Arc::<AtomicUsize>::default());
    let tried = tries.clone();
    let serve = tokio::spawn(async move {
        listener.accept().await.unwrap().0.write_all(b"421 not now\r\n").await.unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(stream);
            tried.fetch_add(1, Ordering::Relaxed);
        }
    });
    let well = TestRelay::start(Duration::ZERO).await;
    let (relays, route) = relays(&[silent, well.named("well", "")]);
    // A probe waits up to five minutes for the greeting. The loop ends only after one has begun.
    let mut sent = 0;
    while sent < 100 || tries.load(Ordering::Relaxed) == 0 {
        send(&mut connection(&relays, &route).await, sent).await;
        sent += 1;
    }
    assert_eq!(well.accepted(), sent);
    relays.close().await;
    serve.abort();
}

#[tokio::test]
async fn a_recovered_relay_is_used_even_if_connections_are_seldom_needed() {
    let (first, other) =
        (TestRelay::start(Duration::ZERO).await, TestRelay::start(Duration::ZERO).await);
    first.catcher.change_rules(|rules| rules.greeting = Some("421 4.3.2 not now".into()));
    let (relays, route) =
        relays(&[first.named("first", "weight = 1000\nidle_ms = 100"), other.named("other", "")]);
    send(&mut connection(&relays, &route).await, 0).await;
    first.catcher.change_rules(|rules| rules.greeting = None);
    send(&mut connection(&relays, &route).await, 1).await;
    assert_eq!((first.accepted(), other.accepted()), (0, 2));
    // Waits until a probe has opened and closed its connection.
    let relay = relays.all().next().unwrap().clone();
    let opened = || relay.stats().connections_opened.load(std::sync::atomic::Ordering::Relaxed);
    eventually("a probe", LIMIT, async || {
        (opened() == 1 && relay.open_connections() == 0).then_some(())
    })
    .await;
    // Until a message has succeeded, the relay gets only one connection at a time.
    let mut probing = connection(&relays, &route).await;
    send(&mut connection(&relays, &route).await, 2).await;
    send(&mut probing, 3).await;
    assert_eq!((first.accepted(), other.accepted(), relay.faults_in_a_row()), (1, 3, 0));
    send(&mut connection(&relays, &route).await, 4).await;
    assert_eq!(first.accepted(), 2);
    relays.close().await;
}
