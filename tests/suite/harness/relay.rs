//! The mail catcher as a relay: it survives killed daemons and records accepted messages.

use std::{collections::BTreeMap, time::Duration};

use tokio::net::TcpListener;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use versand::mail::catcher::{Catcher, CatcherOptions};

/// The settings of one of several relays, on a port of 127.0.0.1.
pub fn named(name: &str, port: u16, more: &str) -> String {
    format!("[[relays]]\nname = \"{name}\"\nhost = \"127.0.0.1\"\nport = {port}\n{more}\n")
}

pub struct TestRelay {
    pub catcher: Catcher,
    port: u16,
    _stop: DropGuard,
}

impl TestRelay {
    /// `delay` is added to every reply, so that a test can act in the middle of a sending.
    pub async fn start(delay: Duration) -> Self {
        let catcher = Catcher::new(CatcherOptions { journal: true, ..CatcherOptions::default() });
        catcher.change_rules(|rules| rules.delay = delay);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = CancellationToken::new();
        TaskTracker::new().spawn(catcher.clone().serve(listener, stop.clone()));
        Self { catcher, port, _stop: stop.drop_guard() }
    }

    /// The settings of a daemon that sends to this relay over `connections` connections.
    pub fn settings(&self, connections: usize) -> String {
        format!(
            "[relay]\nhost = \"127.0.0.1\"\nport = {}\nconnections = {connections}\n",
            self.port
        )
    }

    /// The settings of one of several relays, with `more` settings of its own.
    pub fn named(&self, name: &str, more: &str) -> String {
        named(name, self.port, more)
    }

    /// The number of messages accepted so far.
    pub fn accepted(&self) -> usize {
        self.catcher.counts().accepted.load(std::sync::atomic::Ordering::Relaxed) as usize
    }

    /// For each recipient: the Message-IDs of the accepted messages.
    pub fn received(&self) -> BTreeMap<String, Vec<String>> {
        let mut received = BTreeMap::<String, Vec<String>>::new();
        for entry in self.catcher.journal().into_iter().filter(|entry| entry.accepted) {
            received.entry(entry.recipient).or_default().push(entry.message_id);
        }
        received
    }
}
