//! Connections: their number, lifetime, reuse, replacement and back-off.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::time::timeout;
use versand::mail::{
    catcher::{Catcher, CatcherAction, CatcherFault, CatcherOptions, CatcherStage},
    smtp::Transaction,
};

use crate::harness::{
    ports::ClosedPort,
    smtp::{FROM, MESSAGE, World, deliver, fault, relay, until},
};

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[tokio::test]
async fn no_connection_is_opened_beyond_the_limit_or_without_need() {
    let world = World::new(|_| (), |relay| relay.connections = 3).await;
    let most = AtomicU64::new(0);
    let sent = join_all((0..60).map(|n| {
        let (world, most) = (&world, &most);
        async move {
            let ended = world.send(&format!("r{n}@x.example")).await;
            most.fetch_max(world.relay.open_connections() as u64, Ordering::Relaxed);
            ended
        }
    }))
    .await;
    assert!(sent.iter().all(|ended| matches!(ended, Transaction::Accepted(_))));
    assert_eq!((load(&most), world.relay.open_connections()), (3, 3));
    let counts = world.catcher.counts();
    assert_eq!(
        (load(&counts.connections), load(&counts.unexpected), load(&counts.resets)),
        (3, 0, 0),
        "no NOOP, no RSET"
    );
    assert_eq!(load(&world.relay.stats().connections_opened), 3);
    assert_eq!(world.accepted(), (60, 60));
    // Messages one after another need a single connection.
    let world = World::new(|_| (), |_| ()).await;
    for n in 0..10 {
        world.send(&format!("r{n}@x.example")).await;
    }
    assert_eq!(load(&world.catcher.counts().connections), 1);
}

#[tokio::test]
async fn a_connection_ends_with_quit_after_its_last_message() {
    let world = World::new(|_| (), |relay| relay.messages_per_connection = 4).await;
    for n in 0..10 {
        assert!(matches!(world.send(&format!("r{n}@x.example")).await, Transaction::Accepted(_)));
    }
    until("two quits", || load(&world.catcher.counts().quits) == 2).await;
    assert_eq!(load(&world.catcher.counts().connections), 3);
    let mut connection = world.relay.connection().await.expect("a connection");
    for _ in 0..2 {
        deliver(&mut connection, (FROM, "x@x.example"), MESSAGE, None, &|| true).await;
    }
    assert!(!connection.is_usable());
    let more = deliver(&mut connection, (FROM, "x@x.example"), MESSAGE, None, &|| true).await;
    assert_eq!(more, Transaction::NotStarted);
}

#[tokio::test]
async fn an_idle_connection_is_closed_with_quit() {
    let world = World::new(|_| (), |relay| relay.idle_ms = 200).await;
    world.send("jane@x.example").await;
    assert_eq!(world.relay.open_connections(), 1);
    until("closed", || world.relay.open_connections() == 0).await;
    assert_eq!(load(&world.catcher.counts().quits), 1);
    assert!(matches!(world.send("jane@x.example").await, Transaction::Accepted(_)));
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_replaced_without_an_error() {
    let world = World::new(|_| (), |_| ()).await;
    // The server ends the connection right after the reply, as at a restart.
    world.catcher.change_rules(|rules| {
        rules.next.push_back(
            CatcherFault::reply(CatcherStage::End, "250 2.0.0 Ok\r\n421 4.3.2 shutting down")
                .accepted(),
        );
    });
    assert!(matches!(world.send("a@x.example").await, Transaction::Accepted(_)));
    assert!(matches!(world.send("b@x.example").await, Transaction::Accepted(_)));
    assert_eq!(load(&world.relay.stats().connections_opened), 2);
    assert_eq!(load(&world.relay.stats().faults), 0);
}

#[tokio::test]
async fn a_connection_dropped_in_the_middle_is_not_reused() {
    let world = World::new(|_| (), |relay| relay.connections = 1).await;
    world.catcher.change_rules(|rules| {
        rules.next.push_back(CatcherFault::new(
            CatcherStage::End,
            CatcherAction::Stall(Duration::from_millis(200)),
        ));
    });
    let mut connection = world.relay.connection().await.expect("a connection");
    let cut = timeout(
        Duration::from_millis(50),
        deliver(&mut connection, (FROM, "a@x.example"), MESSAGE, None, &|| true),
    )
    .await;
    assert!(cut.is_err(), "the transaction was still running");
    assert!(!connection.is_usable());
    drop(connection);
    assert_eq!(world.relay.open_connections(), 0);
    assert!(matches!(world.send("b@x.example").await, Transaction::Accepted(_)));
    assert_eq!(load(&world.catcher.counts().connections), 2);
}

#[tokio::test]
async fn closing_sends_quit_and_opens_no_more_connections() {
    let world = World::new(|_| (), |_| ()).await;
    let in_use = world.relay.connection().await.expect("a connection");
    world.send("jane@x.example").await;
    world.relay.close().await;
    assert_eq!(world.relay.open_connections(), 1);
    drop(in_use);
    until("all closed", || world.relay.open_connections() == 0).await;
    until("two quits", || load(&world.catcher.counts().quits) == 2).await;
    assert_eq!(fault(&world.relay).await.step, "connect");
}

#[tokio::test]
async fn a_connection_that_cannot_be_opened_is_a_fault_of_the_relay_and_backs_off() {
    let closed = ClosedPort::new();
    let refused = relay(|relay| relay.port = closed.port());
    let started = Instant::now();
    for _ in 0..3 {
        assert_eq!(fault(&refused).await.step, "connect");
    }
    // The second attempt waited 100 ms, the third one 200 ms.
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(290) && took < Duration::from_secs(10), "{took:?}");
    assert_eq!(load(&refused.stats().faults), 3);
    // Many senders share one attempt, and none of them waits for a pause of its own.
    let all = join_all((0..15).map(|_| fault(&refused))).await;
    assert!(all.iter().all(|fault| fault.step == "connect"));
    assert_eq!(load(&refused.stats().faults), 4);
}

#[tokio::test]
async fn a_relay_that_comes_back_is_used_again() {
    let world = World::new(|rules| rules.greeting = Some("421 4.3.2 busy".into()), |_| ()).await;
    let found = fault(&world.relay).await;
    assert_eq!((found.step, found.what.as_str()), ("greeting", "421 4.3.2 busy"));
    world
        .catcher
        .change_rules(|rules| rules.greeting = Some("554 5.7.1 not jane@x.example".into()));
    assert_eq!(fault(&world.relay).await.what, "554 5.7.1 not", "a log line holds an address");
    world.catcher.change_rules(|rules| rules.greeting = Some("hello?".into()));
    assert_eq!(fault(&world.relay).await.step, "greeting");
    world.catcher.change_rules(|rules| rules.greeting = None);
    assert!(matches!(world.send("jane@x.example").await, Transaction::Accepted(_)));
}

#[tokio::test]
async fn the_catcher_keeps_the_newest_and_counts_all() {
    let catcher = Catcher::new(CatcherOptions { keep: 2, message_limit_bytes: 100, journal: true });
    let (client, server) = tokio::io::duplex(4096);
    let session = catcher.session(server);
    let talk = async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut read, mut write) = tokio::io::split(client);
        let long = "x".repeat(9000);
        write
            .write_all(
                format!("helo x\r\nmail from:<>\r\nMAIL FROM:<a@b.example>\r\n{long}\r\nRSET\r\n")
                    .as_bytes(),
            )
            .await
            .unwrap();
        for n in 0..4 {
            let size = if n == 3 { 200 } else { 20 };
            let body = "y".repeat(size);
            let commands = format!(
                "MAIL FROM:<a@b.example> BODY=8BITMIME\r\nRCPT TO:<r{n}@x.example>\r\nDATA\r\n..{body}\r\n.\r\n"
            );
            write.write_all(commands.as_bytes()).await.unwrap();
        }
        write
            .write_all(b"MAIL FROM:<a@b.example> SIZE=101\r\nVRFY x\r\nDATA\r\nQUIT\r\n")
            .await
            .unwrap();
        let mut all = String::new();
        read.read_to_string(&mut all).await.unwrap();
        all
    };
    let ((), all) = tokio::join!(session, talk);
    let codes: Vec<&str> = all.lines().map(|line| &line[..3]).collect();
    let mut expected = vec!["220", "250", "250", "503", "500", "250"];
    for n in 0..4 {
        expected.extend(["250", "250", "354", if n == 3 { "552" } else { "250" }]);
    }
    expected.extend(["552", "500", "503", "221"]);
    assert_eq!(codes, expected);
    let kept: Vec<u64> = catcher.messages().iter().map(|caught| caught.number).collect();
    assert_eq!(kept, [1, 2]);
    assert!(catcher.messages()[1].bytes.starts_with(b".yyy"), "the first dot of two is removed");
    assert_eq!(load(&catcher.counts().accepted), 3);
}
