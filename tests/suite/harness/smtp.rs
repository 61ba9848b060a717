//! The relay layer alone, with the catcher as its server.

use std::{path::PathBuf, sync::Arc};

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

use crate::harness::{LIMIT, eventually};

pub const FROM: &str = "news@shop.example";
pub const MESSAGE: &[u8] = b"Message-ID: <m1@shop.example>\r\nSubject: Hi\r\n\r\n.dot\r\n";

/// A catcher and a relay that sends to it. The catcher ends with this `World`.
pub struct World {
    pub catcher: Catcher,
    pub relay: Relay,
    pub port: u16,
    _stop: DropGuard,
}

impl World {
    pub async fn new(
        rules: impl FnOnce(&mut CatcherRules),
        settings: impl FnOnce(&mut config::RelaySettings),
    ) -> Self {
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

    /// Runs one transaction on a connection that the relay chooses.
    pub async fn send(&self, to: &str) -> Transaction {
        let mut connection = self.relay.connection().await.expect("a connection");
        deliver(&mut connection, (FROM, to), MESSAGE, None, &|| true).await
    }

    /// The numbers of accepted messages: as the relay layer counts them, and as the journal of the
    /// catcher has them.
    pub fn accepted(&self) -> (u64, usize) {
        let accepted = self.relay.stats().accepted.load(std::sync::atomic::Ordering::Relaxed);
        (accepted, self.catcher.journal().iter().filter(|entry| entry.accepted).count())
    }
}

/// Runs one transaction. The envelope of `next` is pipelined with it.
pub async fn deliver(
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
pub fn relay(settings: impl FnOnce(&mut config::RelaySettings)) -> Relay {
    let mut relay = Config::from_toml("").expect("the defaults").relay;
    relay.host = "127.0.0.1".into();
    relay.hello_name = "client.example".into();
    relay.connect_timeout_ms = 10_000;
    relay.command_timeout_ms = 1000;
    relay.data_timeout_ms = 1000;
    relay.body_timeout_ms = 1000;
    relay.final_timeout_ms = 1000;
    settings(&mut relay);
    Relay::new(&relay).expect("a relay")
}

pub async fn fault(relay: &Relay) -> RelayFault {
    let opened = tokio::time::timeout(LIMIT, relay.connection()).await.expect("in time");
    opened.err().expect("a fault")
}

pub fn reply(text: &str) -> Reply {
    Reply::parse(text).expect("a reply")
}

/// Writes a file into the folder of a test. Returns its path.
pub fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("written");
    path
}

pub async fn until(what: &str, mut probe: impl FnMut() -> bool) {
    eventually(what, LIMIT, async || probe().then_some(())).await;
}
