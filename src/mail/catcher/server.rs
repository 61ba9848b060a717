//! The built-in mail catcher: an SMTP server (RFC 5321) that keeps what it gets and delivers nothing.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::rules::CatcherRules;

/// More at a time are greeted with 421.
const CONNECTIONS: usize = 2000;

/// What a catcher keeps and takes.
#[derive(Debug, Clone)]
pub struct CatcherOptions {
    /// Messages kept, the oldest go first.
    pub keep: usize,
    /// Larger ones are refused with 552.
    pub message_limit_bytes: usize,
    /// Whether every verdict is written down; it grows without bound, so for tests only.
    pub journal: bool,
}

impl Default for CatcherOptions {
    fn default() -> Self {
        Self { keep: 10_000, message_limit_bytes: 64 << 20, journal: false }
    }
}

/// A message as it came, dots unstuffed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaughtMessage {
    /// From 0, in the order of acceptance.
    pub number: u64,
    pub from: String,
    pub to: Vec<String>,
    pub bytes: Vec<u8>,
}

/// The catcher's own verdict on one recipient of one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEntry {
    pub recipient: String,
    /// Without angle brackets; empty when no message was transferred.
    pub message_id: String,
    pub accepted: bool,
}

/// Counters from the start; they only rise.
#[derive(Debug, Default)]
pub struct CatcherCounts {
    pub connections: AtomicU64,
    pub accepted: AtomicU64,
    pub refused: AtomicU64,
    pub deferred: AtomicU64,
    pub resets: AtomicU64,
    pub quits: AtomicU64,
    /// NOOPs, unknown and misplaced commands, pipelining that was not offered.
    pub odd: AtomicU64,
}

/// Cloneable; all clones share what was caught and the rules.
#[derive(Debug, Clone, Default)]
pub struct Catcher(pub(super) Arc<CatcherState>);

#[derive(Debug, Default)]
pub(super) struct CatcherState {
    pub(super) options: CatcherOptions,
    pub(super) rules: Mutex<CatcherRules>,
    counts: CatcherCounts,
    open: AtomicUsize,
    kept: Mutex<VecDeque<Arc<CaughtMessage>>>,
    journal: Mutex<Vec<JournalEntry>>,
    /// How often each `defer*` address was tried.
    attempts: Mutex<HashMap<String, u32>>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Catcher {
    pub fn new(options: CatcherOptions) -> Self {
        Self(Arc::new(CatcherState { options, ..CatcherState::default() }))
    }

    /// Serves every connection of `listener` until `stop`; open ones end with it.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let mut sessions = JoinSet::new();
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            while sessions.try_join_next().is_some() {}
            match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    let catcher = self.clone();
                    sessions.spawn(async move { catcher.session(stream).await });
                }
                // Out of file descriptors: the listener itself is fine.
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
        sessions.shutdown().await;
    }

    /// Serves one connection to its end, over any stream.
    pub async fn session<S: AsyncRead + AsyncWrite + Unpin + Send>(&self, stream: S) {
        self.counts().connections.fetch_add(1, Ordering::Relaxed);
        let busy = self.0.open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS;
        let _open = Open(&self.0.open);
        super::session::run(self, stream, busy).await;
    }

    /// Changes the rules for every transaction that begins later.
    pub fn change_rules(&self, change: impl FnOnce(&mut CatcherRules)) {
        change(&mut lock(&self.0.rules));
    }

    pub fn counts(&self) -> &CatcherCounts {
        &self.0.counts
    }

    /// The messages kept, oldest first.
    pub fn messages(&self) -> Vec<Arc<CaughtMessage>> {
        lock(&self.0.kept).iter().cloned().collect()
    }

    /// Every verdict so far, in order, if [`CatcherOptions::journal`] asks for it.
    pub fn journal(&self) -> Vec<JournalEntry> {
        lock(&self.0.journal).clone()
    }

    /// Connections open now.
    pub fn open_connections(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    pub(super) fn keep(&self, from: &str, to: &[String], bytes: Vec<u8>) {
        for recipient in to {
            self.note(recipient, &bytes, true);
        }
        let mut kept = lock(&self.0.kept);
        let number = self.counts().accepted.fetch_add(1, Ordering::Relaxed);
        if kept.len() >= self.0.options.keep {
            kept.pop_front();
        }
        kept.push_back(Arc::new(CaughtMessage {
            number,
            from: from.to_owned(),
            to: to.to_vec(),
            bytes,
        }));
    }

    pub(super) fn note(&self, recipient: &str, bytes: &[u8], accepted: bool) {
        if self.0.options.journal {
            let message_id = message_id(bytes);
            lock(&self.0.journal).push(JournalEntry {
                recipient: recipient.to_owned(),
                message_id,
                accepted,
            });
        }
    }

    /// How often `recipient` was tried, this time included.
    pub(super) fn attempt(&self, recipient: &str) -> u32 {
        let mut attempts = lock(&self.0.attempts);
        let count = attempts.entry(recipient.to_lowercase()).or_default();
        *count += 1;
        *count
    }
}

/// The address a catcher is reached at when it was bound to one of all interfaces.
pub fn reachable(bound: SocketAddr) -> SocketAddr {
    match bound {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => ([127, 0, 0, 1], v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            (std::net::Ipv6Addr::LOCALHOST, v6.port()).into()
        }
        bound => bound,
    }
}

struct Open<'a>(&'a AtomicUsize);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Of the header, which ends at the first empty line.
fn message_id(bytes: &[u8]) -> String {
    const NAME: &[u8] = b"message-id:";
    bytes
        .split(|b| *b == b'\n')
        .map(|line| line.trim_ascii_end())
        .take_while(|line| !line.is_empty())
        .find(|line| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)))
        .map(|line| {
            String::from_utf8_lossy(&line[NAME.len()..]).trim().trim_matches(['<', '>']).to_owned()
        })
        .unwrap_or_default()
}
