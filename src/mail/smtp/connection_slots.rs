//! Permits: how many connections of a relay may be in use, and who hears when one is given back.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

pub struct ConnectionSlots {
    counts: Arc<Counts>,
    free: Arc<Semaphore>,
    freed: Arc<Notify>,
}

struct Counts {
    /// Free and in use.
    all: AtomicUsize,
    /// So many there are to be.
    wanted: AtomicUsize,
}

/// The right to one connection; whoever waits for one hears when it is given back.
pub struct ConnectionSlot {
    permit: Option<OwnedSemaphorePermit>,
    counts: Arc<Counts>,
    freed: Arc<Notify>,
}

impl ConnectionSlots {
    pub fn new(all: usize, freed: Arc<Notify>) -> Self {
        let counts = Counts { all: AtomicUsize::new(all), wanted: AtomicUsize::new(all) };
        Self { counts: Arc::new(counts), free: Arc::new(Semaphore::new(all)), freed }
    }

    /// So many from now on; those in use beyond that are not given to others. One caller at a time.
    pub fn allow(&self, wanted: usize) {
        self.counts.wanted.store(wanted, Ordering::Relaxed);
        let all = self.counts.all.load(Ordering::Relaxed);
        if wanted > all {
            self.counts.all.fetch_add(wanted - all, Ordering::Relaxed);
            self.free.add_permits(wanted - all);
            self.tell();
        } else {
            let gone = self.free.forget_permits(all - wanted);
            self.counts.all.fetch_sub(gone, Ordering::Relaxed);
        }
    }

    /// So many there are to be.
    pub fn allowed(&self) -> usize {
        self.counts.wanted.load(Ordering::Relaxed)
    }

    pub fn has_free(&self) -> bool {
        self.free.available_permits() > 0
    }

    /// Waits for its turn; `None` once they are closed.
    pub async fn acquire(&self) -> Option<ConnectionSlot> {
        let permit = Arc::clone(&self.free).acquire_owned().await.ok();
        permit.map(|permit| self.wrap(permit))
    }

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

    pub fn in_use(&self) -> usize {
        self.counts.all.load(Ordering::Relaxed).saturating_sub(self.free.available_permits())
    }

    pub fn close(&self) {
        self.free.close();
        self.tell();
    }

    pub fn is_closed(&self) -> bool {
        self.free.is_closed()
    }

    /// Those who wait look again.
    pub fn tell(&self) {
        self.freed.notify_waiters();
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let wanted = self.counts.wanted.load(Ordering::Relaxed);
        let surplus = |all: usize| (all > wanted).then(|| all - 1);
        let is_surplus =
            self.counts.all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, surplus).is_ok();
        match self.permit.take() {
            // whoever waits for one would get it at once
            Some(permit) if is_surplus => permit.forget(),
            // before anybody hears of it, so that who hears finds it
            permit => drop(permit),
        }
        self.freed.notify_waiters();
    }
}
