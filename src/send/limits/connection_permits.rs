//! Turns: which delivery gets the next connection.
//!
//! The one that has fewest: no number of chunks of a large delivery makes a small one wait for more than one of them to end.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::{domain::delivery::DeliveryId, mail::smtp::RelayRoute};

/// Those of all routes. Cheap to clone.
#[derive(Clone, Default)]
pub struct ConnectionPermits(Arc<Mutex<HashMap<RelayRoute, RoutePermits>>>);

impl ConnectionPermits {
    /// Those who share the relays of a route take turns at its connections.
    pub fn of(&self, route: &RelayRoute, connections: usize) -> RoutePermits {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.entry(route.clone()).or_insert_with(|| RoutePermits::new(connections)).clone()
    }

    /// So many connections there may be now: of each route.
    pub fn allow(&self, connections: impl Fn(&RelayRoute) -> usize) {
        let turns = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        turns.iter().for_each(|(route, turns)| turns.allow(connections(route)));
    }
}

/// Those of one route. Cheap to clone.
#[derive(Clone)]
pub struct RoutePermits(Arc<Mutex<PermitState>>);

struct PermitState {
    /// Free and given.
    all: usize,
    /// Below 0 if more are given than there may be now.
    free: isize,
    held: HashMap<DeliveryId, usize>,
    waiting: VecDeque<(DeliveryId, oneshot::Sender<ConnectionPermit>)>,
}

/// The right to a connection, until it is dropped.
pub struct ConnectionPermit {
    turns: RoutePermits,
    delivery: DeliveryId,
}

impl RoutePermits {
    pub fn new(connections: usize) -> Self {
        Self(Arc::new(Mutex::new(PermitState {
            all: connections,
            free: connections as isize,
            held: HashMap::new(),
            waiting: VecDeque::new(),
        })))
    }

    fn allow(&self, connections: usize) {
        let mut state = self.state();
        state.free += connections as isize - state.all as isize;
        state.all = connections;
        self.pass_on(state);
    }

    /// Waits for a turn. Cancel-safe.
    pub async fn take(&self, delivery: &DeliveryId) -> ConnectionPermit {
        loop {
            let waiting = {
                let mut state = self.state();
                if state.free > 0 && state.waiting.is_empty() {
                    return self.give(&mut state, delivery.clone());
                }
                let (mine, waiting) = oneshot::channel();
                state.waiting.push_back((delivery.clone(), mine));
                self.pass_on(state);
                waiting
            };
            if let Ok(turn) = waiting.await {
                return turn;
            }
        }
    }

    fn give(&self, state: &mut PermitState, delivery: DeliveryId) -> ConnectionPermit {
        state.free -= 1;
        *state.held.entry(delivery.clone()).or_default() += 1;
        ConnectionPermit { turns: self.clone(), delivery }
    }

    /// Gives free turns to those who wait: first of all to the delivery that has fewest, and of one delivery to who came first.
    fn pass_on(&self, mut state: MutexGuard<'_, PermitState>) {
        let mut gone = Vec::new();
        while state.free > 0 {
            let held = |delivery: &DeliveryId| state.held.get(delivery).copied().unwrap_or(0);
            let next = (0..state.waiting.len()).min_by_key(|i| held(&state.waiting[*i].0));
            let Some((delivery, waiter)) = next.and_then(|next| state.waiting.remove(next)) else {
                break;
            };
            let turn = self.give(&mut state, delivery);
            // whoever has stopped waiting gives it back, but not while the lock is held
            if let Err(turn) = waiter.send(turn) {
                gone.push(turn);
            }
        }
        drop(state);
        drop(gone);
    }

    fn state(&self) -> MutexGuard<'_, PermitState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        state.free += 1;
        if let Some(held) = state.held.get_mut(&self.delivery) {
            *held -= 1;
            if *held == 0 {
                state.held.remove(&self.delivery);
            }
        }
        state.waiting.retain(|(_, waiter)| !waiter.is_closed());
        self.turns.pass_on(state);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn id(n: u8) -> DeliveryId {
        DeliveryId::from_random([n; 10])
    }

    #[tokio::test]
    async fn the_delivery_with_fewest_is_next_and_of_one_delivery_the_first() {
        let turns = RoutePermits::new(2);
        let (large, small) = (id(1), id(2));
        let mut held = vec![turns.take(&large).await, turns.take(&large).await];
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let tasks = tokio_util::task::TaskTracker::new();
        for (n, delivery) in [(0, &large), (1, &large), (2, &small), (3, &small)] {
            let (turns, delivery, told) = (turns.clone(), delivery.clone(), told.clone());
            tasks.spawn(async move {
                let turn = turns.take(&delivery).await;
                told.send((n, turn)).map_err(drop)
            });
            tokio::task::yield_now().await;
        }
        let mut order = Vec::new();
        for _ in 0..4 {
            drop(held.remove(0));
            let (n, turn) = timeout(Duration::from_secs(5), heard.recv()).await.unwrap().unwrap();
            order.push(n);
            held.push(turn);
        }
        // small has none, then each has one, then it is the turn of who holds fewer
        assert_eq!(order[0], 2);
        assert_eq!(order[1..].iter().filter(|n| **n == 0 || **n == 1).count(), 2);
        assert!(order.iter().position(|n| *n == 0) < order.iter().position(|n| *n == 1));
    }

    #[tokio::test]
    async fn who_stops_waiting_keeps_nothing() {
        let turns = RoutePermits::new(1);
        let first = turns.take(&id(1)).await;
        assert!(timeout(Duration::from_millis(20), turns.take(&id(2))).await.is_err());
        drop(first);
        drop(timeout(Duration::from_secs(5), turns.take(&id(3))).await.unwrap());
        assert_eq!(turns.state().free, 1);
        assert!(turns.state().held.is_empty());
    }
}
