//! The differences that the conservation check found, delivery by delivery, and whose turn it is.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    deliveries::Deliveries, domain::delivery::DeliveryId, metrics, send::recover::Recounts,
    store::StoreError,
};

/// A delivery that has ended changes no more: its ledgers are read again only so often.
const ENDED: Duration = Duration::from_secs(600);

#[derive(Clone, Default)]
pub struct ConservationDifferences(Arc<Mutex<HashMap<DeliveryId, LastComparison>>>);

#[derive(Clone, Copy)]
struct LastComparison {
    at: Instant,
    ended: bool,
    difference: u64,
}

impl ConservationDifferences {
    /// The delivery that was not looked at for the longest time; deliveries that are gone are forgotten.
    pub fn next(&self, ids: &[DeliveryId], now: Instant) -> Option<DeliveryId> {
        let mut checked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        checked.retain(|id, _| ids.contains(id));
        let due = |id: &&DeliveryId| {
            checked.get(*id).is_none_or(|c| !c.ended || now.duration_since(c.at) >= ENDED)
        };
        ids.iter().filter(due).min_by_key(|id| checked.get(*id).map(|c| c.at)).cloned()
    }

    /// What was found; `None` if the figures changed too fast to be compared: the last difference stands.
    pub fn note(&self, id: DeliveryId, difference: Option<u64>, ended: bool, now: Instant) {
        let mut checked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = checked.get(&id).map_or(0, |c| c.difference);
        let ended = ended && difference.is_some();
        checked
            .insert(id, LastComparison { at: now, ended, difference: difference.unwrap_or(last) });
    }

    pub fn largest(&self) -> u64 {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .map(|c| c.difference)
            .max()
            .unwrap_or(0)
    }
}

#[derive(Clone)]
pub struct ConservationCheck {
    pub deliveries: Deliveries,
    pub recounts: Recounts,
    pub differences: ConservationDifferences,
}

impl ConservationCheck {
    /// One delivery at a time, in turn; the gauge shows the largest difference that stands.
    pub(super) async fn check_next(&self) -> Result<(), StoreError> {
        let ids = self.deliveries.store.delivery_ids(0, 1000).await?;
        let now = Instant::now();
        let Some(id) = self.differences.next(&ids, now) else { return Ok(()) };
        let (difference, ended) = match self.difference_of(&id).await {
            Err(error) if !error.may_pass() => {
                // the others have their turns, too
                tracing::error!(delivery.id = %id, %error, "its figures cannot be compared");
                (None, false)
            }
            compared => compared?,
        };
        if difference.is_some_and(|difference| difference > 0) {
            tracing::error!(delivery.id = %id, difference, "figures that must agree do not");
        }
        self.differences.note(id, difference, ended, now);
        metrics::conservation(self.differences.largest());
        Ok(())
    }

    /// The difference, and whether the delivery has ended.
    async fn difference_of(&self, id: &DeliveryId) -> Result<(Option<u64>, bool), StoreError> {
        let Some(delivery) = self.deliveries.store.delivery(id).await? else {
            return Ok((Some(0), true));
        };
        let compared = if delivery.document.has_started() {
            self.recounts.difference(&delivery).await
        } else {
            Ok(Some(0))
        };
        let difference = match compared {
            Ok(Some(0) | None) => compared?,
            // what is removed in these moments cannot be compared: only where nothing was changed it is a difference
            _ if self
                .deliveries
                .store
                .delivery(id)
                .await?
                .is_none_or(|now| now.revision != delivery.revision) =>
            {
                None
            }
            _ => compared?,
        };
        Ok((difference, delivery.state.has_ended()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_take_turns_and_a_difference_stands_until_its_delivery_is_gone() {
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
    fn what_has_ended_is_looked_at_now_and_then() {
        let ids = [DeliveryId::from_random([1; 10])];
        let (differences, start) = (ConservationDifferences::default(), Instant::now());
        differences.note(ids[0].clone(), Some(0), true, start);
        assert_eq!(differences.next(&ids, start + Duration::from_secs(599)), None);
        assert_eq!(differences.next(&ids, start + ENDED), Some(ids[0].clone()));
    }
}
