//! A connection in use: one transaction after the other, given back when it is dropped.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use super::{
    connection_slots::ConnectionSlot,
    fault::RelayFault,
    relay::{Pool, QUIT_LIMIT},
    session::SmtpSession,
    transaction::{Envelope, Transaction},
};

/// Servers count every RSET without a message as junk, and end the session after some: Postfix after 100 of them slows down.
const TESTS_PER_CONNECTION: u32 = 50;

/// An open connection, in use or idle.
pub(super) struct OpenConnection {
    pub session: SmtpSession,
    pub messages: u32,
    pub _open: OpenCount,
}

/// Counts itself for as long as it lives.
pub(super) struct OpenCount(Arc<AtomicUsize>);

impl OpenCount {
    pub fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for OpenCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl OpenConnection {
    pub async fn quit(self) {
        self.session.wire.quit(QUIT_LIMIT).await;
    }
}

/// One connection, for one transaction after the other. Dropped between two it is kept for reuse;
/// dropped in the middle of one it is closed.
pub struct SmtpConnection {
    pub(super) link: Option<OpenConnection>,
    pub(super) pool: Arc<Pool>,
    pub(super) permit: Option<ConnectionSlot>,
}

impl SmtpConnection {
    /// Whether another transaction may be made on it; if not, drop it and take another one.
    pub fn is_usable(&self) -> bool {
        self.link.as_ref().is_some_and(|link| {
            link.session.usable && link.messages < self.pool.messages_per_connection
        })
    }

    /// The relay's name, and how many messages a second it may get from all daemons together, if there is a limit.
    pub fn limit(&self) -> Option<(&str, f64)> {
        (self.pool.messages_per_second > 0.0)
            .then_some((self.pool.name.as_str(), self.pool.messages_per_second))
    }

    /// Whether the next message's envelope can go along with this one's end.
    pub fn takes_next(&self) -> bool {
        let after_this =
            |link: &OpenConnection| link.messages + 1 < self.pool.messages_per_connection;
        self.link.as_ref().is_some_and(|link| link.session.takes_next() && after_this(link))
    }

    /// One transaction; the message has CRLF line ends, and is of no use afterwards: what goes with it over the wire is appended to it.
    /// `may_go` is asked before the envelope and before the write that contains the end of data; if it says no there, the connection is
    /// closed and nothing is delivered.
    ///
    /// `next` is the envelope of the message that will be sent after this one: it may go along. If another one is sent, or none,
    /// the connection is closed instead, and nothing is delivered to `next`.
    ///
    /// Not cancel-safe: what was going on when the future was dropped is unknown.
    pub async fn send(
        &mut self,
        envelope: &Envelope,
        message: &mut Vec<u8>,
        next: Option<Arc<Envelope>>,
        may_go: &(dyn Fn() -> bool + Sync),
    ) -> Transaction {
        let started = Instant::now();
        let ended = self.transact(envelope, message, next, may_go).await;
        self.pool.transactions.ended(ended.word(), started.elapsed());
        ended
    }

    async fn transact(
        &mut self,
        envelope: &Envelope,
        message: &mut Vec<u8>,
        next: Option<Arc<Envelope>>,
        may_go: &(dyn Fn() -> bool + Sync),
    ) -> Transaction {
        if !self.is_usable() {
            return Transaction::NotStarted;
        }
        let next = next.filter(|_| self.takes_next());
        let Some(link) = self.link.as_mut() else {
            return Transaction::NotStarted;
        };
        link.messages += 1;
        let ended = link.session.transact(self.pool.limits, envelope, message, next, may_go).await;
        self.end(ended)
    }

    /// SMTP test mode: one transaction that ends after RCPT with RSET, so that nothing is delivered. `may_go` is asked before the
    /// envelope. Not cancel-safe either.
    pub async fn test(
        &mut self,
        envelope: &Envelope,
        may_go: &(dyn Fn() -> bool + Sync),
    ) -> Transaction {
        let started = Instant::now();
        let ended = self.try_recipient(envelope, may_go).await;
        self.pool.transactions.ended(ended.word(), started.elapsed());
        ended
    }

    async fn try_recipient(
        &mut self,
        envelope: &Envelope,
        may_go: &(dyn Fn() -> bool + Sync),
    ) -> Transaction {
        if !self.is_usable() {
            return Transaction::NotStarted;
        }
        let Some(link) = self.link.as_mut() else {
            return Transaction::NotStarted;
        };
        let used = self.pool.messages_per_connection.saturating_sub(TESTS_PER_CONNECTION);
        link.messages = link.messages.max(used) + 1;
        let ended = link.session.test(self.pool.limits, envelope, may_go).await;
        self.end(ended)
    }

    fn end(&mut self, ended: Transaction) -> Transaction {
        // Closes now, not when the caller lets go.
        self.link.take_if(|link| !link.session.usable);
        self.count(&ended);
        ended
    }

    fn count(&self, ended: &Transaction) {
        let fault = match ended {
            Transaction::Accepted(_) => {
                self.pool.stats.accepted.fetch_add(1, Ordering::Relaxed);
                None
            }
            Transaction::Deferred { fault: Some(what), .. } | Transaction::InDoubt(what) => {
                Some(RelayFault::new("transaction", what))
            }
            Transaction::Deferred { reply: Some(reply), .. } if reply.code == 421 => {
                Some(RelayFault::reply("transaction", reply))
            }
            Transaction::NotStarted => return,
            Transaction::Deferred { .. } | Transaction::Refused(_) | Transaction::Tested(_) => None,
        };
        match fault {
            // not its text: a server may repeat an address in it
            Some(fault) if self.pool.fault(&fault) => {
                tracing::warn!(relay = self.pool.name, "a transaction was broken off")
            }
            Some(_) => {}
            None if self.pool.backoff.success() => {
                tracing::info!(relay = self.pool.name, "the relay is well again")
            }
            None => {}
        }
    }
}

impl Drop for SmtpConnection {
    fn drop(&mut self) {
        let usable = self.is_usable();
        let (Some(link), permit) = (self.link.take(), self.permit.take()) else {
            return;
        };
        if !link.session.usable || link.session.is_ahead() {
            return;
        }
        if usable && !self.pool.closed.is_cancelled() {
            // Into the idle ones before the permit is free: who takes it finds the connection.
            self.pool.idle().push((link, Instant::now()));
            drop(permit);
        } else if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // The permit goes along: the connection counts until it is closed.
            self.pool.tasks.spawn_on(
                async move {
                    link.quit().await;
                    drop(permit);
                },
                &runtime,
            );
        }
    }
}
