//! Mail out against foreign parts: Python's parser, the catcher's faults, a TLS server, Postfix.

mod connections;
mod messages;
mod pipelined;
mod postfix;
mod secure;
mod templates;
mod test_mode;
mod tracked;
mod transactions;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::net::TcpListener;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use versand::{
    config::{self, Config},
    domain::outcome::Reply,
    mail::{
        catcher::{Catcher, CatcherOptions, CatcherRules},
        smtp::{Envelope, Relay, RelayFault, SmtpConnection, Transaction},
    },
};

const FROM: &str = "news@shop.example";
const MESSAGE: &[u8] = b"Message-ID: <m1@shop.example>\r\nSubject: Hi\r\n\r\n.dot\r\n";

/// A catcher and a relay that sends to it; the catcher ends with it.
struct World {
    catcher: Catcher,
    relay: Relay,
    port: u16,
    _stop: DropGuard,
}

impl World {
    async fn new(rules: impl FnOnce(&mut CatcherRules), settings: impl FnOnce(&mut config::RelaySettings)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let catcher = Catcher::new(CatcherOptions { journal: true, ..CatcherOptions::default() });
        catcher.change_rules(rules);
        let stop = CancellationToken::new();
        TaskTracker::new().spawn(catcher.clone().serve(listener, stop.clone()));
        let relay = relay(|relay| {
            relay.port = port;
            settings(relay);
        });
        Self { catcher, relay, port, _stop: stop.drop_guard() }
    }

    /// One transaction on a connection of its own choosing.
    async fn send(&self, to: &str) -> Transaction {
        let mut connection = self.relay.connection().await.expect("a connection");
        deliver(&mut connection, (FROM, to), MESSAGE, None, &|| true).await
    }

    /// What the relay layer counts as accepted, and what the catcher does, per its journal.
    fn accepted(&self) -> (u64, usize) {
        let accepted = self.relay.stats().accepted.load(std::sync::atomic::Ordering::Relaxed);
        (accepted, self.catcher.journal().iter().filter(|entry| entry.accepted).count())
    }
}

/// One transaction; the envelope of `next` goes along.
async fn deliver(
    connection: &mut SmtpConnection,
    (from, to): (&str, &str),
    message: &[u8],
    next: Option<&str>,
    may_go: &(dyn Fn() -> bool + Sync),
) -> Transaction {
    let envelope = match Envelope::new(from, to, message.len()) {
        Ok(envelope) => envelope,
        Err(reply) => return Transaction::Refused(reply),
    };
    let next = next.map(|to| Arc::new(Envelope::new(from, to, message.len()).unwrap()));
    connection.send(&envelope, &mut message.to_vec(), next, may_go).await
}

/// A relay on 127.0.0.1 with short time-outs.
fn relay(settings: impl FnOnce(&mut config::RelaySettings)) -> Relay {
    let mut relay = Config::from_toml("").expect("the defaults").relay;
    relay.host = "127.0.0.1".into();
    relay.hello_name = "client.example".into();
    relay.connect_timeout_ms = 2000;
    relay.command_timeout_ms = 300;
    relay.data_timeout_ms = 300;
    relay.body_timeout_ms = 300;
    relay.final_timeout_ms = 300;
    settings(&mut relay);
    Relay::new(&relay).expect("a relay")
}

async fn fault(relay: &Relay) -> RelayFault {
    let opened = tokio::time::timeout(Duration::from_secs(10), relay.connection()).await.expect("in time");
    opened.err().expect("a fault")
}

fn reply(text: &str) -> Reply {
    Reply::parse(text).expect("a reply")
}

/// The folder of a test's files.
fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("written");
    path
}

async fn until(what: &str, mut probe: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !probe() {
        assert!(Instant::now() < end, "{what}: not within 5 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
