//! The state that all connections of a catcher share: messages, counters, rules.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use super::rules::CatcherRules;

/// How much a catcher accepts and keeps.
#[derive(Debug, Clone)]
pub struct CatcherOptions {
    /// How many messages are kept. The oldest are dropped first.
    pub keep: usize,
    /// The largest message in bytes. Larger ones are refused with 552.
    pub message_limit_bytes: usize,
    /// Whether the catcher keeps a journal of all verdicts. It grows without bound: for tests only.
    pub journal: bool,
}

impl Default for CatcherOptions {
    fn default() -> Self {
        Self { keep: 10_000, message_limit_bytes: 64 << 20, journal: false }
    }
}

/// A message that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaughtMessage {
    /// The number in the order of acceptance, from 0.
    pub number: u64,
    /// The envelope sender.
    pub from: String,
    /// The recipients of the envelope.
    pub to: Vec<String>,
    /// The message without dot stuffing and the final dot.
    pub bytes: Vec<u8>,
}

/// The catcher's verdict on one recipient of one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEntry {
    /// The address of the envelope.
    pub recipient: String,
    /// Without angle brackets; empty if the message was not accepted.
    pub message_id: String,
    /// Whether the message was accepted.
    pub accepted: bool,
}

/// Counters since the start. They only rise.
#[derive(Debug, Default)]
pub struct CatcherCounts {
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Messages accepted.
    pub accepted: AtomicU64,
    /// Replies 5xx that the rules ask for.
    pub refused: AtomicU64,
    /// Replies 4xx that the rules ask for, and the 452 to too many recipients. A 421 does not
    /// count.
    pub deferred: AtomicU64,
    /// RSET commands.
    pub resets: AtomicU64,
    /// QUIT commands.
    pub quits: AtomicU64,
    /// NOOPs, unknown, malformed and misplaced commands, lines that are too long, and pipelining
    /// that was not offered.
    pub unexpected: AtomicU64,
}

/// A mail catcher. All clones share messages, counters and rules.
#[derive(Debug, Clone, Default)]
pub struct Catcher(Arc<CatcherState>);

#[derive(Debug, Default)]
struct CatcherState {
    options: CatcherOptions,
    rules: Mutex<CatcherRules>,
    counts: CatcherCounts,
    open: AtomicUsize,
    kept: Mutex<VecDeque<Arc<CaughtMessage>>>,
    journal: Mutex<Vec<JournalEntry>>,
    /// How often each `defer*` address was tried, by address in lower case.
    attempts: Mutex<HashMap<String, u32>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Catcher {
    /// A catcher with the usual rules.
    pub fn new(options: CatcherOptions) -> Self {
        Self(Arc::new(CatcherState { options, ..CatcherState::default() }))
    }

    /// Changes the rules. The change may affect open transactions, too.
    pub fn change_rules(&self, change: impl FnOnce(&mut CatcherRules)) {
        change(&mut self.rules());
    }

    pub(super) fn rules(&self) -> MutexGuard<'_, CatcherRules> {
        lock(&self.0.rules)
    }

    pub(super) fn message_limit_bytes(&self) -> usize {
        self.0.options.message_limit_bytes
    }

    /// The counters.
    pub fn counts(&self) -> &CatcherCounts {
        &self.0.counts
    }

    /// The messages that are kept, the oldest first.
    pub fn messages(&self) -> Vec<Arc<CaughtMessage>> {
        lock(&self.0.kept).iter().cloned().collect()
    }

    /// All verdicts so far, in order; empty without [`CatcherOptions::journal`].
    pub fn journal(&self) -> Vec<JournalEntry> {
        lock(&self.0.journal).clone()
    }

    /// Counts one more open connection while the result lives.
    pub(super) fn open(&self) -> OpenSession<'_> {
        self.counts().connections.fetch_add(1, Ordering::Relaxed);
        let before = self.0.open.fetch_add(1, Ordering::Relaxed);
        OpenSession { open: &self.0.open, before }
    }

    /// How many connections are open now.
    pub fn open_connections(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    /// Accepts a message for all its recipients.
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

    /// Writes a verdict into the journal, if there is one.
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

    /// Counts an attempt. Returns how often `recipient` was tried, with this attempt.
    pub(super) fn count_attempt(&self, recipient: &str) -> u32 {
        let mut attempts = lock(&self.0.attempts);
        let count = attempts.entry(recipient.to_lowercase()).or_default();
        *count += 1;
        *count
    }
}

/// Counts as one open connection while it lives.
pub(super) struct OpenSession<'a> {
    open: &'a AtomicUsize,
    /// How many connections were open before.
    pub before: usize,
}

impl Drop for OpenSession<'_> {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The Message-ID in the header, or an empty string. The header ends at the first empty line.
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
