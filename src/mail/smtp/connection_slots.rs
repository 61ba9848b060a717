//! Slots: how many connections of a relay may be in use at a time.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The slots of one relay. The limit may change at any time.
pub struct ConnectionSlots {
    counts: Arc<Counts>,
    free: Arc<Semaphore>,
    freed: Arc<Notify>,
}

struct Counts {
    /// Slots, free and in use. More than `limit` only while the surplus is in use.
    all: AtomicUsize,
    /// How many slots there shall be.
    limit: AtomicUsize,
}

/// The right to one connection. All who wait are notified when it is dropped.
pub struct ConnectionSlot {
    permit: Option<OwnedSemaphorePermit>,
    counts: Arc<Counts>,
    freed: Arc<Notify>,
}

impl ConnectionSlots {
    /// Makes `limit` slots. `freed` is notified when a slot becomes free.
    pub fn new(limit: usize, freed: Arc<Notify>) -> Self {
        let counts = Counts { all: AtomicUsize::new(limit), limit: AtomicUsize::new(limit) };
        Self { counts: Arc::new(counts), free: Arc::new(Semaphore::new(limit)), freed }
    }

    /// Changes the number of slots.
    ///
    /// A surplus slot that is in use ends when it is dropped. Only one task may call this at
    /// a time.
    pub fn set_limit(&self, limit: usize) {
        self.counts.limit.store(limit, Ordering::Relaxed);
        let all = self.counts.all.load(Ordering::Relaxed);
        if limit > all {
            self.counts.all.fetch_add(limit - all, Ordering::Relaxed);
            self.free.add_permits(limit - all);
            self.notify();
        } else {
            let gone = self.free.forget_permits(all - limit);
            self.counts.all.fetch_sub(gone, Ordering::Relaxed);
        }
    }

    /// How many slots there shall be.
    pub fn limit(&self) -> usize {
        self.counts.limit.load(Ordering::Relaxed)
    }

    /// Whether a slot is free.
    pub fn has_free(&self) -> bool {
        self.free.available_permits() > 0
    }

    /// Waits for a free slot, first come, first served. `None` after [`Self::close`].
    pub async fn acquire(&self) -> Option<ConnectionSlot> {
        let permit = Arc::clone(&self.free).acquire_owned().await.ok();
        permit.map(|permit| self.wrap(permit))
    }

    /// A slot, if one is free.
    pub fn try_acquire(&self) -> Option<ConnectionSlot> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok();
        permit.map(|permit| self.wrap(permit))
    }

    fn wrap(&self, permit: OwnedSemaphorePermit) -> ConnectionSlot {
        ConnectionSlot {
            permit: Some(permit),
            counts: Arc::clone(&self.counts),
            freed: Arc::clone(&self.freed),
        }
    }

    /// How many slots are in use.
    pub fn in_use(&self) -> usize {
        self.counts.all.load(Ordering::Relaxed).saturating_sub(self.free.available_permits())
    }

    /// Gives no more slots. All who wait are notified.
    pub fn close(&self) {
        self.free.close();
        self.notify();
    }

    /// Whether [`Self::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.free.is_closed()
    }

    /// Makes all who wait look again.
    pub fn notify(&self) {
        self.freed.notify_waiters();
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let limit = self.counts.limit.load(Ordering::Relaxed);
        let surplus = |all: usize| (all > limit).then(|| all - 1);
        let is_surplus =
            self.counts.all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, surplus).is_ok();
        match self.permit.take() {
            // A permit that is dropped would go to the next in the queue.
            Some(permit) if is_surplus => permit.forget(),
            // The permit is free before the notification, so that a woken task finds it.
            permit => drop(permit),
        }
        self.freed.notify_waiters();
    }
}
