//! Round trips, counted by a proxy between the relay layer and the catcher.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::task::TaskTracker;
use versand::mail::smtp::Transaction;

use crate::harness::smtp::{FROM, MESSAGE, World, deliver, relay, until};

const MESSAGES: usize = 20;

/// Forwards everything to `to`. Counts how often the client writes after a write of the server.
async fn proxy(to: u16) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, turns) = (listener.local_addr().unwrap().port(), Arc::<AtomicUsize>::default());
    let counted = turns.clone();
    TaskTracker::new().spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
        let (mut sent, mut answered) = (vec![0; 65536], vec![0; 65536]);
        let mut servers_turn = false;
        loop {
            tokio::select! {
                n = client.read(&mut sent) => match n {
                    Ok(n) if n > 0 => {
                        counted.fetch_add(usize::from(servers_turn), Ordering::Relaxed);
                        servers_turn = false;
                        server.write_all(&sent[..n]).await.unwrap();
                    }
                    _ => return,
                },
                n = server.read(&mut answered) => match n {
                    Ok(n) if n > 0 => {
                        servers_turn = true;
                        client.write_all(&answered[..n]).await.unwrap();
                    }
                    _ => return,
                },
            }
        }
    });
    (port, turns)
}

/// Sends the messages over one connection. Returns the average of round trips for a message.
async fn round_trips(pipelining: bool) -> f64 {
    let world = World::new(|rules| rules.pipelining = pipelining, |_| ()).await;
    let (port, turns) = proxy(world.port).await;
    let relay = relay(|relay| relay.port = port);
    let mut connection = relay.connection().await.expect("a connection");
    let before = turns.load(Ordering::Relaxed);
    let to: Vec<String> = (0..MESSAGES).map(|i| format!("user{i}@example.org")).collect();
    for (i, address) in to.iter().enumerate() {
        let next = to.get(i + 1).map(String::as_str);
        let ended = deliver(&mut connection, (FROM, address), MESSAGE, next, &|| true).await;
        assert!(matches!(ended, Transaction::Accepted(_)), "{ended:?}");
    }
    let received: Vec<String> =
        world.catcher.messages().into_iter().flat_map(|caught| caught.to.clone()).collect();
    assert_eq!(received, to);
    assert_eq!(
        world.catcher.counts().unexpected.load(Ordering::Relaxed),
        0,
        "commands out of order"
    );
    (turns.load(Ordering::Relaxed) - before) as f64 / MESSAGES as f64
}

#[tokio::test]
async fn a_message_costs_one_round_trip_with_pipelining() {
    let trips = round_trips(true).await;
    assert!(trips <= 1.2, "{trips}");
}

#[tokio::test]
async fn without_pipelining_there_is_one_command_at_a_time() {
    let trips = round_trips(false).await;
    assert!((4.0..=4.2).contains(&trips), "MAIL, RCPT, DATA, the message: {trips}");
}

#[tokio::test]
async fn a_pipelined_envelope_serves_only_its_own_message() {
    let world = World::new(|_| (), |_| ()).await;
    for other in ["bob@example.org", ""] {
        let mut connection = world.relay.connection().await.expect("a connection");
        let next = Some("ann@example.org");
        assert!(matches!(
            deliver(&mut connection, (FROM, "jane@example.org"), MESSAGE, next, &|| true).await,
            Transaction::Accepted(_)
        ));
        if !other.is_empty() {
            assert_eq!(
                deliver(&mut connection, (FROM, other), MESSAGE, None, &|| true).await,
                Transaction::NotStarted
            );
            assert!(!connection.is_usable());
        }
        // The connection is given back, and the message of its pipelined envelope was not sent. So
        // the connection is not used again.
        drop(connection);
        until("closed", || world.relay.open_connections() == 0).await;
    }
    let received: Vec<String> =
        world.catcher.messages().into_iter().flat_map(|caught| caught.to.clone()).collect();
    assert_eq!(received, ["jane@example.org", "jane@example.org"]);
}
