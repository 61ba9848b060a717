//! A relay: opens connections, gives them out, and closes them.

use std::{
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    backoff::Backoff,
    connection::SmtpConnection,
    connection_slots::{ConnectionSlot, ConnectionSlots},
    fault::{RelayError, RelayFault},
    handshake::RelayTarget,
    outage::RelayOutage,
    pool::{OpenConnection, OpenCount, Pool, QUIT_LIMIT, RelayStats},
    session::{SmtpSession, TransactionTimeouts},
};
use crate::{config, live::Live, metrics::TransactionMetrics};

/// One relay. All clones share connections, limits and back-off.
#[derive(Clone)]
pub struct Relay(pub(super) Arc<Pool>);

impl Relay {
    /// Checks the settings, and reads the password and the certificates. Opens no connection.
    ///
    /// # Errors
    ///
    /// A setting or a file that cannot be used.
    pub fn new(settings: &config::RelaySettings) -> Result<Self, RelayError> {
        Self::with_notify(settings, Arc::default())
    }

    /// As [`Self::new`]. `freed` is notified when a connection is given back.
    ///
    /// # Errors
    ///
    /// A setting or a file that cannot be used.
    pub(super) fn with_notify(
        settings: &config::RelaySettings,
        freed: Arc<Notify>,
    ) -> Result<Self, RelayError> {
        let ms = Duration::from_millis;
        Ok(Self(Arc::new(Pool {
            name: settings.name.clone(),
            target: RelayTarget::new(settings)?,
            timeouts: TransactionTimeouts {
                command: ms(settings.command_timeout_ms),
                data: ms(settings.data_timeout_ms),
                body: ms(settings.body_timeout_ms),
                last: ms(settings.final_timeout_ms),
            },
            messages_per_connection: settings.messages_per_connection,
            idle_limit: ms(settings.idle_ms),
            // If all daemons share the connections, this one has none before it gets its share.
            slots: ConnectionSlots::new(
                if settings.total_connections > 0 { 0 } else { settings.connections },
                freed,
            ),
            messages_per_second: Live::new(settings.messages_per_second),
            idle: Mutex::default(),
            backoff: Backoff::default(),
            outage: RelayOutage::default(),
            open: Arc::default(),
            stats: Arc::default(),
            tasks: TaskTracker::new(),
            closed: CancellationToken::new(),
            closing_idle: AtomicBool::new(false),
            probing: AtomicBool::new(false),
            transactions: TransactionMetrics::of(&settings.name),
        })))
    }

    /// A connection that is ready for a transaction: an idle one, or a new one.
    ///
    /// Waits while all connections are in use, and while the relay is backing off. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The relay is closed, the connection cannot be opened, or another fault came while this
    /// caller waited. In the last case the caller gets the first fault of the last outage.
    pub async fn connection(&self) -> Result<SmtpConnection, RelayFault> {
        let slot = self.0.slots.acquire().await;
        let slot = slot.ok_or_else(|| RelayFault::new("connect", "the relay is closed"))?;
        self.connection_with(slot).await
    }

    /// As [`Self::connection`], with a slot that the caller has already.
    pub(super) async fn connection_with(
        &self,
        slot: ConnectionSlot,
    ) -> Result<SmtpConnection, RelayFault> {
        let pool = &self.0;
        let open = match pool.take_idle() {
            Some(open) => open,
            None => self.open().await?,
        };
        Ok(SmtpConnection { open: Some(open), pool: Arc::clone(pool), slot: Some(slot) })
    }

    async fn open(&self) -> Result<OpenConnection, RelayFault> {
        let pool = &self.0;
        self.start_closing_idle();
        let _permit = pool.backoff.wait().await?;
        // A connection may have been given back in the meantime.
        if let Some(open) = pool.take_idle() {
            return Ok(open);
        }
        match pool.target.open().await {
            Ok((wire, extensions)) => {
                pool.stats.connections_opened.fetch_add(1, Ordering::Relaxed);
                pool.backoff.record_open();
                Ok(OpenConnection {
                    session: SmtpSession::new(wire, extensions),
                    messages: 0,
                    _count: OpenCount::new(&pool.open),
                })
            }
            Err(fault) => {
                pool.record_fault(&fault);
                Err(fault)
            }
        }
    }

    /// Whether the relay is backing off, or closed.
    ///
    /// It is backing off if there was no success since its last fault, and no idle connection is
    /// left. After a connection was opened again, the relay may be used by one connection at a
    /// time. That connection shows whether the relay takes mail again.
    pub(super) fn is_at_fault(&self) -> bool {
        if !self.0.backoff.is_active() {
            return self.0.slots.is_closed();
        }
        if self.0.backoff.has_opened() && self.in_use() == 0 {
            return false;
        }
        let mut idle = self.0.idle();
        idle.retain_mut(|(open, _)| open.session.wire.is_quiet());
        idle.is_empty()
    }

    /// Starts a task that tries whether a faulty relay accepts a connection again.
    ///
    /// The connection stays idle for a while. Only one probe runs at a time.
    pub(super) fn probe(&self) {
        let pool = &self.0;
        if pool.probing.swap(true, Ordering::Relaxed) {
            return;
        }
        let (relay, closed) = (self.clone(), pool.closed.clone());
        pool.tasks.spawn(async move {
            // A connection is given back at once. A fault is recorded by the attempt itself.
            drop(closed.run_until_cancelled(relay.connection()).await);
            relay.0.probing.store(false, Ordering::Relaxed);
            relay.0.slots.notify();
        });
    }

    /// The name in the settings.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Outages in a row, without a success between them. Faults at the same time count once.
    pub fn faults_in_a_row(&self) -> u32 {
        self.0.backoff.faults()
    }

    /// Connections open now, in use and idle.
    pub fn open_connections(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    /// The counters.
    pub fn stats(&self) -> Arc<RelayStats> {
        Arc::clone(&self.0.stats)
    }

    /// Ends the idle connections with QUIT, and opens no new ones.
    ///
    /// Connections in use end when they are given back. The call takes about a second at most.
    pub async fn close(&self) {
        let pool = &self.0;
        pool.slots.close();
        pool.closed.cancel();
        let idle = std::mem::take(&mut *pool.idle());
        join_all(idle.into_iter().map(|(open, _)| open.quit())).await;
        pool.tasks.close();
        let _ = timeout(QUIT_LIMIT, pool.tasks.wait()).await;
    }

    /// Starts, once, the task that ends connections that are idle for too long.
    fn start_closing_idle(&self) {
        let pool = &self.0;
        if pool.closing_idle.swap(true, Ordering::Relaxed) {
            return;
        }
        let (weak, closed) = (Arc::downgrade(pool), pool.closed.clone());
        let pause = (pool.idle_limit / 4).max(Duration::from_millis(20));
        pool.tasks.spawn(async move {
            while closed.run_until_cancelled(sleep(pause)).await.is_some() {
                let Some(old) = Weak::upgrade(&weak).map(|pool| pool.take_old()) else {
                    return;
                };
                let quits = old.into_iter().map(|(open, slot)| async move {
                    open.quit().await;
                    drop(slot);
                });
                join_all(quits).await;
            }
        });
    }

    /// Changes how many connections this daemon may use.
    ///
    /// Surplus connections in use become idle when they are given back. Idle ones stay open until
    /// they are idle for too long.
    pub fn allow(&self, connections: usize) {
        self.0.slots.set_limit(connections);
    }

    /// How many connections this daemon may use now.
    pub fn allowed(&self) -> usize {
        self.0.slots.limit()
    }

    /// Whether a slot for a connection is free.
    pub(super) fn has_free(&self) -> bool {
        self.0.slots.has_free()
    }

    /// The relay's name and its limit in messages per second, if it has one.
    ///
    /// The limit holds for all daemons together.
    pub fn rate(&self) -> Option<(&str, f64)> {
        self.0.rate()
    }

    /// Replaces the limit in messages per second; 0 means no limit.
    pub(super) fn set_rate(&self, messages_per_second: f64) {
        self.0.messages_per_second.set(messages_per_second);
    }

    /// A slot for a connection, unless all are in use.
    pub(super) fn try_slot(&self) -> Option<ConnectionSlot> {
        self.0.slots.try_acquire()
    }

    /// Slots in use: for connections in use, being opened or being closed.
    pub(super) fn in_use(&self) -> usize {
        self.0.slots.in_use()
    }
}
