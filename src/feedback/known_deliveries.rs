//! A cache of deliveries whose links were followed lately; it spares most hits a read of Redis.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::{domain::tracking::TrackedLink, store::tracking::PreparationRef};

/// How long a delivery is known before Redis is asked again.
const FRESH: Duration = Duration::from_secs(60);
/// Most deliveries that are known at a time.
const KEPT: usize = 1000;

/// The parts of a delivery that its links need.
#[derive(Debug)]
pub struct SentDelivery {
    pub mailing: PreparationRef,
    pub links: Vec<TrackedLink>,
    /// Links age from here: the later of the confirmation and the last wave's due instant. None
    /// before the confirmation.
    pub released_at: Option<Timestamp>,
    /// The hits of the delivery are recorded: it was confirmed and still has its tracking log.
    pub(super) is_counted: bool,
    /// When the delivery was read.
    pub(super) known_at: Instant,
}

/// The deliveries whose links were followed lately, by their preparation number.
#[derive(Clone, Default)]
pub struct KnownDeliveries(Arc<Mutex<HashMap<u32, Arc<SentDelivery>>>>);

impl KnownDeliveries {
    /// The delivery, if it was read lately.
    pub(super) fn get(&self, preparation: u32) -> Option<Arc<SentDelivery>> {
        let known = self.lock();
        known.get(&preparation).filter(|sent| sent.known_at.elapsed() < FRESH).cloned()
    }

    /// Keeps a delivery, if there is room.
    pub(super) fn insert(&self, preparation: u32, sent: Arc<SentDelivery>) {
        let mut known = self.lock();
        if known.len() >= KEPT {
            known.retain(|_, sent| sent.known_at.elapsed() < FRESH);
        }
        if known.len() < KEPT {
            known.insert(preparation, sent);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Arc<SentDelivery>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
