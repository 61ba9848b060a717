//! The differences that the conservation check found, delivery by delivery.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::domain::id::DeliveryId;

/// By delivery: the last difference, and when it is its turn again.
#[derive(Clone, Default)]
pub struct Differences(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    found: BTreeMap<DeliveryId, u64>,
    last: Option<DeliveryId>,
}

impl Differences {
    /// Whose turn it is: the one after the last, in the order of the ids.
    pub fn next(&self, ids: &[DeliveryId]) -> Option<DeliveryId> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.found.retain(|id, _| ids.contains(id));
        let after = ids.iter().filter(|id| Some(*id) > inner.last.as_ref()).min();
        let next = after.or_else(|| ids.iter().min()).cloned();
        inner.last.clone_from(&next);
        next
    }

    pub fn note(&self, id: DeliveryId, difference: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).found.insert(id, difference);
    }

    pub fn largest(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).found.values().copied().max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_take_turns_and_a_difference_stands_until_its_delivery_is_gone() {
        let ids: Vec<DeliveryId> = (0..3u8).map(|n| DeliveryId::from_random([n; 10])).collect();
        let differences = Differences::default();
        let turns: Vec<DeliveryId> = (0..4).filter_map(|_| differences.next(&ids)).collect();
        assert_eq!(turns, [ids[0].clone(), ids[1].clone(), ids[2].clone(), ids[0].clone()]);
        differences.note(ids[1].clone(), 7);
        differences.note(ids[2].clone(), 1);
        assert_eq!(differences.largest(), 7);
        differences.next(&ids[2..]);
        assert_eq!(differences.largest(), 1);
    }
}
