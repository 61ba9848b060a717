//! Messages a second from the relay layer to the catcher, over 1, 4 and 16 connections.
//!
//! Run it with `cargo bench --bench connections`.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a benchmark prints, and fails by a panic

use std::time::Instant;

use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use versand::{
    config::Config,
    mail::{
        catcher::{Catcher, CatcherOptions},
        smtp::{Envelope, Relay, Transaction},
    },
};

/// How many messages each connection sends.
const MESSAGES: u32 = 900;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = Config::from_toml("").unwrap().relay;
    settings.host = "127.0.0.1".into();
    settings.hello_name = "client.example".into();
    settings.messages_per_connection = 1_000_000;
    settings.port = listener.local_addr().unwrap().port();
    let stop = CancellationToken::new();
    TaskTracker::new().spawn(Catcher::new(CatcherOptions::default()).serve(listener, stop.clone()));
    let relay = Relay::new(&settings).unwrap();
    let head = "Message-ID: <m1@shop.example>\r\nSubject: Hi\r\n\r\n";
    let message = format!("{head}{}", "0123456789 line of text\r\n".repeat(200)).into_bytes();
    let envelope = Envelope::new("news@shop.example", "jane@x.example", message.len()).unwrap();
    for connections in [1, 4, 16] {
        let started = Instant::now();
        join_all((0..connections).map(|_| async {
            let mut connection = relay.connection().await.ok().unwrap();
            for _ in 0..MESSAGES {
                let sent = connection.send(&envelope, &mut message.clone(), None, &|| true).await;
                assert!(matches!(sent, Transaction::Accepted(_)), "{sent:?}");
            }
        }))
        .await;
        let rate = f64::from(connections * MESSAGES) / started.elapsed().as_secs_f64();
        println!("{connections} connections: {rate:.0} messages/s");
    }
    relay.close().await;
    stop.cancel();
}
