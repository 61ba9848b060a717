//! A relay: a bounded number of SMTP connections, reused without a NOOP, and what they count.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    backoff::Backoff,
    connection::{OpenConnection, OpenCount, SmtpConnection},
    connection_slots::{ConnectionSlot, ConnectionSlots},
    fault::{RelayError, RelayFault},
    handshake::RelayTarget,
    session::{SmtpSession, TransactionTimeouts},
};
use crate::{config, metrics::TransactionMetrics};

/// How long QUIT waits for its answer; nothing depends on it.
pub(super) const QUIT_LIMIT: Duration = Duration::from_millis(250);

/// Counters of the relay layer, from its start; they only rise.
#[derive(Debug, Default)]
pub struct RelayStats {
    /// Positive replies to the end of data.
    pub accepted: AtomicU64,
    pub connections_opened: AtomicU64,
    /// Connections that could not be opened, broke, or were ended by a 421.
    pub faults: AtomicU64,
}

/// Cloneable; all clones share connections, limits and back-off.
#[derive(Clone)]
pub struct Relay(pub(super) Arc<Pool>);

pub(super) struct Pool {
    pub(super) name: String,
    target: RelayTarget,
    pub(super) limits: TransactionTimeouts,
    pub(super) messages_per_connection: u32,
    idle_limit: Duration,
    /// One permit for each connection in use. Connections in use and idle together never exceed the
    /// permits: a new one is opened only while none is idle.
    pub(super) permits: ConnectionSlots,
    pub(super) messages_per_second: f64,
    idle: Mutex<Vec<(OpenConnection, Instant)>>,
    pub(super) backoff: Backoff,
    open: Arc<AtomicUsize>,
    pub(super) stats: Arc<RelayStats>,
    pub(super) tasks: TaskTracker,
    pub(super) closed: CancellationToken,
    reaping: AtomicBool,
    probing: AtomicBool,
    pub(super) transactions: TransactionMetrics,
}

impl Relay {
    /// Reads the password and the certificates; connects to nothing.
    ///
    /// # Errors
    /// A file that cannot be read or used.
    pub fn new(settings: &config::RelaySettings) -> Result<Self, RelayError> {
        Self::among(settings, Arc::default())
    }

    /// As [`Self::new`]; `freed` hears of every connection that is given back.
    ///
    /// # Errors
    /// A file that cannot be read or used.
    pub fn among(settings: &config::RelaySettings, freed: Arc<Notify>) -> Result<Self, RelayError> {
        let ms = Duration::from_millis;
        Ok(Self(Arc::new(Pool {
            name: settings.name.clone(),
            target: RelayTarget::new(settings)?,
            limits: TransactionTimeouts {
                command: ms(settings.command_timeout_ms),
                data: ms(settings.data_timeout_ms),
                body: ms(settings.body_timeout_ms),
                last: ms(settings.final_timeout_ms),
            },
            messages_per_connection: settings.messages_per_connection,
            idle_limit: ms(settings.idle_ms),
            // of those that all daemons share none is this one's before it has its share
            permits: ConnectionSlots::new(
                if settings.total_connections > 0 { 0 } else { settings.connections },
                freed,
            ),
            messages_per_second: settings.messages_per_second,
            idle: Mutex::default(),
            backoff: Backoff::default(),
            open: Arc::default(),
            stats: Arc::default(),
            tasks: TaskTracker::new(),
            closed: CancellationToken::new(),
            reaping: AtomicBool::new(false),
            probing: AtomicBool::new(false),
            transactions: TransactionMetrics::of(&settings.name),
        })))
    }

    /// A connection that is ready for a transaction: an idle one, or a new one. Waits while all are in
    /// use, and while the relay is backing off. Cancel-safe.
    ///
    /// # Errors
    /// The fault of the attempt to open one; of another caller's attempt, if it was made while this one waited.
    pub async fn connection(&self) -> Result<SmtpConnection, RelayFault> {
        let permit = self
            .0
            .permits
            .acquire()
            .await
            .ok_or_else(|| RelayFault::new("connect", "the relay is closed"))?;
        self.connection_with(permit).await
    }

    /// The same with a permit that was got before.
    pub(super) async fn connection_with(
        &self,
        permit: ConnectionSlot,
    ) -> Result<SmtpConnection, RelayFault> {
        let pool = &self.0;
        let link = match pool.take_idle() {
            Some(link) => link,
            None => self.open().await?,
        };
        Ok(SmtpConnection { link: Some(link), pool: Arc::clone(pool), permit: Some(permit) })
    }

    async fn open(&self) -> Result<OpenConnection, RelayFault> {
        let pool = &self.0;
        self.reap();
        let _turn = pool.backoff.turn().await?;
        // Given back by somebody while this one waited.
        if let Some(link) = pool.take_idle() {
            return Ok(link);
        }
        match pool.target.open().await {
            Ok((wire, offers)) => {
                pool.stats.connections_opened.fetch_add(1, Ordering::Relaxed);
                pool.backoff.opened();
                Ok(OpenConnection {
                    session: SmtpSession::new(wire, offers),
                    messages: 0,
                    _open: OpenCount::new(&pool.open),
                })
            }
            Err(fault) => {
                if pool.fault(&fault) {
                    tracing::warn!(relay = pool.name, %fault, "no connection to the relay");
                }
                Err(fault)
            }
        }
    }

    /// Whether it is backing off: there was no success since its last fault, and nothing is open that could be used. Once it can be
    /// connected to again, one connection at a time is to show whether it takes mail, too.
    pub(super) fn is_at_fault(&self) -> bool {
        if !self.0.backoff.is_on() {
            return self.0.permits.is_closed();
        }
        if self.0.backoff.has_opened() && self.in_use() == 0 {
            return false;
        }
        let mut idle = self.0.idle();
        idle.retain_mut(|(link, _)| link.session.wire.is_quiet());
        idle.is_empty()
    }

    /// Sees, apart from all that is sent, whether a relay that was at fault can be connected to again; the connection is kept for a while.
    pub(super) fn probe(&self) {
        let pool = &self.0;
        if pool.probing.swap(true, Ordering::Relaxed) {
            return;
        }
        let (relay, closed) = (self.clone(), pool.closed.clone());
        pool.tasks.spawn(async move {
            // given back at once, or it was a fault
            drop(closed.run_until_cancelled(relay.connection()).await);
            relay.0.probing.store(false, Ordering::Relaxed);
            relay.0.permits.tell();
        });
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its faults in a row, without a success between; those of one outage count once.
    pub fn faults_in_a_row(&self) -> u32 {
        self.0.backoff.faults()
    }

    /// Connections open now, in use and idle.
    pub fn open_connections(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    pub fn stats(&self) -> Arc<RelayStats> {
        Arc::clone(&self.0.stats)
    }

    /// Ends the idle connections with QUIT and lets no new one be opened; those in use end when they are
    /// given back. Takes about half a second at the most.
    pub async fn close(&self) {
        let pool = &self.0;
        pool.permits.close();
        pool.closed.cancel();
        let idle = std::mem::take(&mut *pool.idle());
        join_all(idle.into_iter().map(|(link, _)| link.quit())).await;
        pool.tasks.close();
        let _ = timeout(QUIT_LIMIT, pool.tasks.wait()).await;
    }

    /// Starts, once, the task that ends connections that were idle for too long.
    fn reap(&self) {
        let pool = &self.0;
        if pool.reaping.swap(true, Ordering::Relaxed) {
            return;
        }
        let (weak, closed) = (Arc::downgrade(pool), pool.closed.clone());
        let pause = (pool.idle_limit / 4).max(Duration::from_millis(20));
        pool.tasks.spawn(async move {
            while closed.run_until_cancelled(sleep(pause)).await.is_some() {
                let Some(old) = Weak::upgrade(&weak).map(|pool| pool.take_old()) else {
                    return;
                };
                let quits = old.into_iter().map(|(link, permit)| async move {
                    link.quit().await;
                    drop(permit);
                });
                join_all(quits).await;
            }
        });
    }
}

impl Pool {
    pub(super) fn idle(&self) -> MutexGuard<'_, Vec<(OpenConnection, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one used last, so that a surplus grows old. One that the server ended meanwhile is dropped.
    fn take_idle(&self) -> Option<OpenConnection> {
        let mut idle = self.idle();
        while let Some((mut link, _)) = idle.pop() {
            if link.session.wire.is_quiet() {
                return Some(link);
            }
        }
        None
    }

    /// Each with a permit: it counts until it is closed.
    fn take_old(&self) -> Vec<(OpenConnection, ConnectionSlot)> {
        let mut old = Vec::new();
        while let Some(permit) = self.permits.try_acquire() {
            let next =
                self.idle().extract_if(.., |(_, since)| since.elapsed() >= self.idle_limit).next();
            let Some((link, _)) = next else { break };
            old.push((link, permit));
        }
        old
    }

    /// Whether it is the first in a row.
    pub(super) fn fault(&self, fault: &RelayFault) -> bool {
        self.stats.faults.fetch_add(1, Ordering::Relaxed);
        self.backoff.fault(fault)
    }
}
