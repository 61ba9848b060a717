//! The conservation check: compares the figures that must agree, one delivery after the other.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    deliveries::Deliveries,
    domain::delivery::{Delivery, DeliveryId},
    metrics,
    send::recover::Recounts,
    store::StoreError,
};

/// How often a delivery that has ended is checked: its ledgers seldom change.
const ENDED: Duration = Duration::from_secs(600);

/// The last comparison of each delivery. Cheap to clone.
#[derive(Clone, Default)]
pub struct ConservationDifferences(Arc<Mutex<HashMap<DeliveryId, LastComparison>>>);

#[derive(Clone, Copy)]
struct LastComparison {
    at: Instant,
    /// True if the delivery had ended by then, and its figures were compared.
    ended: bool,
    difference: u64,
}

impl ConservationDifferences {
    /// Returns the delivery that was checked least recently, and forgets all that are not in `ids`.
    ///
    /// A delivery that has ended is left out until its last check is [`ENDED`] ago.
    fn next(&self, ids: &[DeliveryId], now: Instant) -> Option<DeliveryId> {
        let mut checked = self.lock();
        checked.retain(|id, _| ids.contains(id));
        let due = |id: &&DeliveryId| {
            checked.get(*id).is_none_or(|c| !c.ended || now.duration_since(c.at) >= ENDED)
        };
        ids.iter().filter(due).min_by_key(|id| checked.get(*id).map(|c| c.at)).cloned()
    }

    /// Notes a comparison.
    ///
    /// `None` keeps the last difference: the figures changed too fast, or could not be compared.
    fn note(&self, id: DeliveryId, difference: Option<u64>, ended: bool, now: Instant) {
        let mut checked = self.lock();
        let last = checked.get(&id).map_or(0, |c| c.difference);
        let ended = ended && difference.is_some();
        checked
            .insert(id, LastComparison { at: now, ended, difference: difference.unwrap_or(last) });
    }

    /// Returns the largest difference of any delivery.
    pub fn largest(&self) -> u64 {
        self.lock().values().map(|c| c.difference).max().unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DeliveryId, LastComparison>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks that no recipient was lost or counted twice.
#[derive(Clone)]
pub struct ConservationCheck {
    pub deliveries: Deliveries,
    pub recounts: Recounts,
    pub differences: ConservationDifferences,
}

impl ConservationCheck {
    /// Compares the figures of the next delivery, and sets the gauge to the largest difference.
    pub(super) async fn check_next(&self) -> Result<(), StoreError> {
        let ids = self.deliveries.store.delivery_ids(0, 1000).await?;
        let now = Instant::now();
        let Some(id) = self.differences.next(&ids, now) else { return Ok(()) };
        let (difference, ended) = match self.difference_of(&id).await {
            Err(error) if !error.may_pass() => {
                // an error in one delivery must not stop the check of the others
                tracing::error!(
                    delivery.id = %id,
                    %error,
                    "the figures of the delivery cannot be compared"
                );
                (None, false)
            }
            compared => compared?,
        };
        if difference.is_some_and(|difference| difference > 0) {
            tracing::error!(delivery.id = %id, difference, "figures that must agree differ");
        }
        self.differences.note(id, difference, ended, now);
        metrics::conservation(self.differences.largest());
        Ok(())
    }

    /// Returns the difference, and whether the delivery has ended.
    async fn difference_of(&self, id: &DeliveryId) -> Result<(Option<u64>, bool), StoreError> {
        let Some(delivery) = self.deliveries.read(id).await? else {
            return Ok((Some(0), true));
        };
        let compared = if delivery.document.has_started() {
            self.recounts.difference(&delivery).await
        } else {
            Ok(Some(0))
        };
        let difference = match compared {
            Ok(Some(0) | None) => compared?,
            // figures that were read while the delivery changed do not fit together
            _ if self.has_changed(&delivery).await? => None,
            _ => compared?,
        };
        Ok((difference, delivery.state.has_ended()))
    }

    async fn has_changed(&self, delivery: &Delivery) -> Result<bool, StoreError> {
        let now = self.deliveries.read(&delivery.id).await?;
        Ok(now.is_none_or(|now| now.revision != delivery.revision))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_checked_in_turn_and_the_difference_of_a_removed_delivery_is_forgotten() {
        let ids: Vec<DeliveryId> = (0..3u8).map(|n| DeliveryId::from_random([n; 10])).collect();
        let (differences, start) = (ConservationDifferences::default(), Instant::now());
        let at = |s| start + Duration::from_secs(s);
        for (second, id) in [(0, 0), (1, 1), (2, 2), (3, 0)] {
            assert_eq!(differences.next(&ids, at(second)), Some(ids[id].clone()), "{second}");
            differences.note(ids[id].clone(), Some(id as u64 * 7), false, at(second));
        }
        differences.note(ids[1].clone(), None, false, at(4));
        assert_eq!(differences.largest(), 14);
        differences.next(&ids[..2], at(5));
        assert_eq!(differences.largest(), 7);
    }

    #[test]
    fn an_ended_delivery_is_checked_rarely() {
        let ids = [DeliveryId::from_random([1; 10])];
        let (differences, start) = (ConservationDifferences::default(), Instant::now());
        differences.note(ids[0].clone(), Some(0), true, start);
        assert_eq!(differences.next(&ids, start + Duration::from_secs(599)), None);
        assert_eq!(differences.next(&ids, start + ENDED), Some(ids[0].clone()));
    }
}
