//! Permits: how many connections of a relay may be in use, and who hears when one is given back.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

pub struct Permits {
    all: AtomicUsize,
    free: Arc<Semaphore>,
    freed: Arc<Notify>,
}

/// The right to one connection; whoever waits for one hears when it is given back.
pub struct Permit {
    permit: Option<OwnedSemaphorePermit>,
    freed: Arc<Notify>,
}

impl Permits {
    pub fn new(all: usize, freed: Arc<Notify>) -> Self {
        Self { all: AtomicUsize::new(all), free: Arc::new(Semaphore::new(all)), freed }
    }

    /// So many from now on; those in use beyond that end as they do. One caller at a time.
    pub fn allow(&self, wanted: usize) {
        let all = self.all.load(Ordering::Relaxed);
        if wanted > all {
            self.free.add_permits(wanted - all);
            self.all.store(wanted, Ordering::Relaxed);
            self.tell();
        } else {
            let gone = self.free.forget_permits(all - wanted);
            self.all.store(all - gone, Ordering::Relaxed);
        }
    }

    /// Waits for its turn; `None` once they are closed.
    pub async fn acquire(&self) -> Option<Permit> {
        let permit = Arc::clone(&self.free).acquire_owned().await.ok();
        permit.map(|permit| self.wrap(permit))
    }

    pub fn try_acquire(&self) -> Option<Permit> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok();
        permit.map(|permit| self.wrap(permit))
    }

    fn wrap(&self, permit: OwnedSemaphorePermit) -> Permit {
        Permit { permit: Some(permit), freed: Arc::clone(&self.freed) }
    }

    pub fn in_use(&self) -> usize {
        self.all.load(Ordering::Relaxed).saturating_sub(self.free.available_permits())
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

impl Drop for Permit {
    fn drop(&mut self) {
        // first, so that who hears of it finds it
        self.permit = None;
        self.freed.notify_waiters();
    }
}
