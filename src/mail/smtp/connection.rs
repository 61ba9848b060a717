//! A connection in use: it runs one transaction after another, and a drop gives it back.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{
    connection_slots::ConnectionSlot,
    fault::RelayFault,
    pool::{OpenConnection, Pool},
    transaction::{Envelope, Transaction},
};

/// The most SMTP tests on one connection.
///
/// Servers count each RSET without a message as junk, and end the session after some. Postfix slows
/// down after 100 of them.
const TESTS_PER_CONNECTION: u32 = 50;

/// One connection to a relay, for one transaction after another.
///
/// A usable connection that is dropped between two transactions is kept for reuse, unless an
/// envelope is pipelined or the relay is closed. Any other connection is closed.
pub struct SmtpConnection {
    pub(super) open: Option<OpenConnection>,
    pub(super) pool: Arc<Pool>,
    pub(super) slot: Option<ConnectionSlot>,
}

impl SmtpConnection {
    /// Whether another transaction may begin. If not, drop the connection and take another one.
    pub fn is_usable(&self) -> bool {
        self.open.as_ref().is_some_and(|open| {
            open.session.usable && open.messages < self.pool.messages_per_connection
        })
    }

    /// The relay's name and its limit in messages per second, if it has one.
    ///
    /// The limit holds for all daemons together.
    pub fn limit(&self) -> Option<(&str, f64)> {
        self.pool.rate()
    }

    /// Whether the envelope of the next message can be pipelined with the end of this one.
    pub fn takes_next(&self) -> bool {
        let after_this =
            |open: &OpenConnection| open.messages + 1 < self.pool.messages_per_connection;
        self.open.as_ref().is_some_and(|open| open.session.takes_next() && after_this(open))
    }

    /// Runs one transaction.
    ///
    /// The message must have CRLF line ends. Its content must not be used afterwards, because the
    /// end of data is appended to it.
    ///
    /// `may_proceed` is asked before the envelope, and again before the write that contains the
    /// end of data. If it returns false, nothing is delivered; the second time, the connection is
    /// closed, too.
    ///
    /// `next` is the envelope of the message after this one, to be pipelined with the end of data.
    /// If the next call has another envelope, or no call follows, the connection is closed. Nothing
    /// is then delivered to `next`.
    ///
    /// Not cancel-safe: after the future is dropped, nobody knows whether the relay took the
    /// message.
    pub async fn send(
        &mut self,
        envelope: &Envelope,
        message: &mut Vec<u8>,
        next: Option<Arc<Envelope>>,
        may_proceed: &(dyn Fn() -> bool + Sync),
    ) -> Transaction {
        let started = Instant::now();
        let ended = self.transact(envelope, message, next, may_proceed).await;
        self.pool.transactions.ended(ended.word(), started.elapsed());
        ended
    }

    async fn transact(
        &mut self,
        envelope: &Envelope,
        message: &mut Vec<u8>,
        next: Option<Arc<Envelope>>,
        may_proceed: &(dyn Fn() -> bool + Sync),
    ) -> Transaction {
        if !self.is_usable() {
            return Transaction::NotStarted;
        }
        let next = next.filter(|_| self.takes_next());
        let Some(open) = self.open.as_mut() else {
            return Transaction::NotStarted;
        };
        open.messages += 1;
        let ended =
            open.session.transact(self.pool.timeouts, envelope, message, next, may_proceed).await;
        self.end(ended)
    }

    /// Runs one transaction in SMTP test mode: RSET follows RCPT, so that nothing is delivered.
    ///
    /// `may_proceed` is asked before the envelope. Not cancel-safe: see [`SmtpConnection::send`].
    pub async fn test(
        &mut self,
        envelope: &Envelope,
        may_proceed: &(dyn Fn() -> bool + Sync),
    ) -> Transaction {
        let started = Instant::now();
        let ended = self.try_recipient(envelope, may_proceed).await;
        self.pool.transactions.ended(ended.word(), started.elapsed());
        ended
    }

    async fn try_recipient(
        &mut self,
        envelope: &Envelope,
        may_proceed: &(dyn Fn() -> bool + Sync),
    ) -> Transaction {
        if !self.is_usable() {
            return Transaction::NotStarted;
        }
        let Some(open) = self.open.as_mut() else {
            return Transaction::NotStarted;
        };
        let used = self.pool.messages_per_connection.saturating_sub(TESTS_PER_CONNECTION);
        open.messages = open.messages.max(used) + 1;
        let ended = open.session.test(self.pool.timeouts, envelope, may_proceed).await;
        self.end(ended)
    }

    fn end(&mut self, ended: Transaction) -> Transaction {
        // An unusable session ends now. The caller may drop the `SmtpConnection` much later.
        self.open.take_if(|open| !open.session.usable);
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
            Some(fault) => self.pool.record_fault(&fault),
            None => self.pool.backoff.record_success(),
        }
    }
}

impl Drop for SmtpConnection {
    fn drop(&mut self) {
        let usable = self.is_usable();
        let (Some(open), slot) = (self.open.take(), self.slot.take()) else {
            return;
        };
        if !open.session.usable || open.session.has_pipelined_envelope() {
            return;
        }
        if usable && !self.pool.closed.is_cancelled() {
            // The connection goes back first, so that the next owner of the slot finds it.
            self.pool.idle().push((open, Instant::now()));
            drop(slot);
        } else if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // The slot stays in use until the connection is closed.
            self.pool.tasks.spawn_on(
                async move {
                    open.quit().await;
                    drop(slot);
                },
                &runtime,
            );
        }
    }
}
