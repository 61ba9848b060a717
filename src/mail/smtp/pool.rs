//! The pool of a relay: its open connections, in use and idle, and their shared state.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::time::{Instant as TokioInstant, sleep_until};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    backoff::Backoff,
    connection_slots::{ConnectionSlot, ConnectionSlots},
    fault::RelayFault,
    handshake::RelayTarget,
    outage::RelayOutage,
    session::{SmtpSession, TransactionTimeouts},
};
use crate::{live::Live, metrics::TransactionMetrics};

/// How long QUIT waits for its reply. Nothing depends on the reply.
pub(super) const QUIT_LIMIT: Duration = Duration::from_millis(250);

/// Counters of one relay since the start of the daemon. They only rise.
///
/// The connections that only try whether an outage is over do not count.
#[derive(Debug, Default)]
pub struct RelayStats {
    /// Positive replies to the end of data.
    pub accepted: AtomicU64,
    /// Connections opened.
    pub connections_opened: AtomicU64,
    /// Connections that could not be opened, and transactions that ended with a fault or a 421.
    pub faults: AtomicU64,
}

/// The connections of one relay, and the state that they share.
pub(super) struct Pool {
    pub(super) name: String,
    pub(super) target: RelayTarget,
    pub(super) timeouts: TransactionTimeouts,
    pub(super) messages_per_connection: u32,
    /// How long a connection may be idle before it is closed.
    pub(super) idle_limit: Duration,
    /// Each connection in use has a slot.
    ///
    /// A new connection for mail is opened only while none is idle. So connections in use and idle
    /// ones together seldom exceed the slots. They do after the number of slots fell, and while a
    /// connection tries whether an outage is over.
    pub(super) slots: ConnectionSlots,
    /// 0: no limit.
    pub(super) messages_per_second: Live<f64>,
    /// Idle connections, each with the instant when it was given back.
    pub(super) idle: Mutex<Vec<(OpenConnection, Instant)>>,
    pub(super) backoff: Backoff,
    pub(super) outage: RelayOutage,
    pub(super) open: Arc<AtomicUsize>,
    pub(super) stats: Arc<RelayStats>,
    pub(super) tasks: TaskTracker,
    pub(super) closed: CancellationToken,
    /// The task that closes idle connections runs.
    pub(super) closing_idle: AtomicBool,
    /// A probe runs.
    pub(super) probing: AtomicBool,
    pub(super) transactions: TransactionMetrics,
}

impl Pool {
    /// The relay's name and its limit in messages per second, if it has one.
    pub(super) fn rate(&self) -> Option<(&str, f64)> {
        let rate = *self.messages_per_second.now();
        (rate > 0.0).then_some((self.name.as_str(), rate))
    }

    /// Locks the list of idle connections.
    pub(super) fn idle(&self) -> MutexGuard<'_, Vec<(OpenConnection, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The idle connection that was used last. So surplus connections stay idle until they
    /// are closed.
    ///
    /// Connections that the server has ended are dropped.
    pub(super) fn take_idle(&self) -> Option<OpenConnection> {
        let mut idle = self.idle();
        while let Some((mut open, _)) = idle.pop() {
            if open.session.wire.is_quiet() {
                return Some(open);
            }
        }
        None
    }

    /// Connections that are idle for too long, as many as slots are free.
    ///
    /// Each comes with a slot, which stays in use until the connection is closed.
    pub(super) fn take_old(&self) -> Vec<(OpenConnection, ConnectionSlot)> {
        let mut old = Vec::new();
        while let Some(slot) = self.slots.try_acquire() {
            let next =
                self.idle().extract_if(.., |(_, since)| since.elapsed() >= self.idle_limit).next();
            let Some((open, _)) = next else { break };
            old.push((open, slot));
        }
        old
    }

    /// Counts and logs a fault.
    pub(super) fn record_fault(self: &Arc<Self>, fault: &RelayFault) {
        self.stats.faults.fetch_add(1, Ordering::Relaxed);
        self.backoff.record_fault(fault);
        self.log_fault(fault);
    }

    /// Logs the first fault of an outage, and starts the task that logs its end.
    fn log_fault(self: &Arc<Self>, fault: &RelayFault) {
        if !self.outage.note(TokioInstant::now()) {
            return;
        }
        let (relay, address) = (&self.name, self.target.address());
        tracing::warn!(relay, address, %fault, "an outage of the relay begins");
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (pool, closed) = (Arc::clone(self), self.closed.clone());
            self.tasks.spawn_on(
                async move {
                    closed.run_until_cancelled(pool.log_end()).await;
                },
                &runtime,
            );
        }
    }

    /// Waits for the end of the outage, and logs it.
    async fn log_end(&self) {
        while let Some(quiet_at) = self.outage.quiet_at() {
            if TokioInstant::now() < quiet_at {
                sleep_until(quiet_at).await;
            } else if !self.backoff.is_active() || self.opens().await {
                break;
            } else {
                self.outage.note(TokioInstant::now());
            }
        }
        if let Some((faults, lasted)) = self.outage.end() {
            let (relay, address, seconds) =
                (&self.name, self.target.address(), lasted.as_secs_f64());
            tracing::warn!(relay, address, seconds, faults, "the outage of the relay is over");
        }
    }

    /// Whether a connection was opened since the last fault, or can be opened now. Without mail
    /// nobody else tries.
    async fn opens(&self) -> bool {
        if self.backoff.has_opened() {
            return true;
        }
        let Some(_slot) = self.slots.try_acquire() else { return false };
        match self.target.open().await {
            Ok((wire, _)) => {
                self.backoff.record_open();
                wire.quit(QUIT_LIMIT).await;
                true
            }
            Err(_) => false,
        }
    }
}

/// An open connection, in use or idle.
pub(super) struct OpenConnection {
    /// Its SMTP session.
    pub session: SmtpSession,
    /// Transactions so far. The first SMTP test raises it, so that few more tests follow.
    pub messages: u32,
    pub _count: OpenCount,
}

/// Counts as one open connection while it lives.
pub(super) struct OpenCount(Arc<AtomicUsize>);

impl OpenCount {
    /// One more open connection in `count`.
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
    /// Ends the session with QUIT.
    pub async fn quit(self) {
        self.session.wire.quit(QUIT_LIMIT).await;
    }
}
